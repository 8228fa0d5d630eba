import pytest
import torch
from torch import nn

import nni_s3d as s3d


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))


def test_weights_shrink_and_receive_noise_of_their_own_size():
    model, before = network(), network()
    s3d.shrink_and_perturb(model, shrink=0.4, perturb=0.2)
    for name in ("0.weight", "4.weight"):
        old, new = before.get_parameter(name), model.get_parameter(name)
        noise = ((new - 0.4 * old) / old.std()).detach()
        assert float(noise.std()) == pytest.approx(0.2, rel=0.15)
        assert float(noise.mean()) == pytest.approx(0, abs=0.05)


def test_biases_and_norms_and_frozen_weights_stay():
    model, before = network(), network()
    model[4].weight.requires_grad_(False)
    s3d.shrink_and_perturb(model)
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before.state_dict()[name])}
    assert changed == {"0.weight"}


def test_the_seed_says_the_noise():
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        s3d.shrink_and_perturb(model, seed=seed)
    first, again, other = (model[0].weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_weight_of_one_number_and_tied_weights():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    before = [layer.weight.clone() for layer in model]
    s3d.shrink_and_perturb(model, shrink=0.5, perturb=0.0)
    for layer, old in zip(model, before, strict=True):
        assert torch.equal(layer.weight, old / 2)


def test_one_number_has_no_deviation_and_gets_no_noise():
    model = nn.Linear(1, 1)
    before = model.weight.clone()
    s3d.shrink_and_perturb(model, shrink=0.5, perturb=0.1)
    assert torch.equal(model.weight, before / 2)
