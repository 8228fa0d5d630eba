import subprocess
import sys

import pytest
import torch
from torch import nn

from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.training import train
from tests.tasks.test_training import loader, network


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_do_what_those_of_pytorch_do(optimizer):
    settings = {"lr": 0.05, "weight_decay": 0.1} | ({"momentum": 0.9} if optimizer is torch.optim.SGD else {})
    recipe = Recipe(epochs=2, schedule="constant", optimizer=optimizer.__name__.lower(), lr=0.05, weight_decay=0.1)
    ours, theirs = network(), network()
    ours[-2] = theirs[-2] = nn.Identity()  # no dropout, which draws numbers
    state = train(ours, loader(seed=0), recipe).state_dict()
    expected = optimizer(theirs.parameters(), **settings)
    for epoch in range(2):
        for inputs, targets in loader(seed=0).epoch(epoch):
            expected.zero_grad()
            nn.functional.cross_entropy(theirs(inputs), targets).backward()
            expected.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(state["state"], expected.state_dict()["state"], rtol=0, atol=0)
    expected.load_state_dict(state)


def test_training_does_not_import_the_compiler():
    program = (
        "import sys; from tests.tasks.test_optimizers import *; "
        "[train(network(), loader(), Recipe(epochs=1, optimizer=kind)) for kind in ('sgd', 'adam', 'adamw')]; "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_weight_decay_spares_batch_norm_and_biases_where_asked():
    optimizer = train(network(), loader(seed=0), Recipe(epochs=1, weight_decay=0.1, decay_norm_and_bias=False))
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert [p.dim() for p in decayed["params"]] == [4, 4, 2]
    assert {p.dim() for p in spared["params"]} == {1}
