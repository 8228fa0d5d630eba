import copy

import torch

from nni_s3d.growth.surgery.new_neurons import draw_new_neurons
from tests import reference
from tests.cases import BY_NAME, measured


def test_new_neurons_are_as_long_as_the_others_on_average_and_these_stay():
    run = measured(BY_NAME["residual-silu"])
    group, model = run.graph["stem"], copy.deepcopy(run.model)
    mask = torch.tensor([False, True, False, True])
    before = reference.theta(run.model, group)
    draw_new_neurons(model, run.graph, {"stem": mask}, seed=0)
    after = reference.theta(model, group)
    assert torch.equal(after[~mask], before[~mask])
    torch.testing.assert_close(after[mask].norm(dim=1), before[~mask].norm(dim=1).mean().expand(2))
    assert not torch.allclose(after[1], after[3])

    again = copy.deepcopy(run.model)
    draw_new_neurons(again, run.graph, {"stem": mask}, seed=0)
    assert torch.equal(reference.theta(again, group), after)
