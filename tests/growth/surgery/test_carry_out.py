import torch

from nni_s3d.growth.surgery.carry_out import carry_out, example_inputs
from nni_s3d.growth.surgery.new_channels import NewChannels
from tests.cases import BY_NAME, measured


def test_some_channels_are_copied_and_others_removed_at_once():
    run = measured(BY_NAME["mlp-tanh"])
    copies = run.graph.per_channel({"0": torch.tensor([2, 0, 1, 1, 1]), "2": torch.tensor([1, 1, 0, 1])})
    weights = torch.tensor([0.25, 0.75] + [1.0] * (int(copies.sum()) - 2), dtype=torch.float64)
    new = NewChannels(copies, weights, torch.ones_like(weights))
    with torch.no_grad():
        done = carry_out(run.model, run.graph, new)
    first, second = [0, 0, 2, 3, 4], [0, 1, 3]
    assert done.graph.widths == {"0": 5, "2": 3}
    assert torch.equal(done.model[0].weight, run.model[0].weight[first])
    expected = run.model[2].weight[second][:, first] * weights[:5]
    assert torch.equal(done.model[2].weight, expected)
    assert torch.equal(done.model[4].weight, run.model[4].weight[:, second])
    assert [len(slots) for slots in done.growth.slots] == [axis.slots.numel() for axis in done.graph.axes()]


def test_inputs_follow_the_model():
    run = measured(BY_NAME["mlp-tanh"])
    model = BY_NAME["mlp-tanh"].model().float()
    assert example_inputs(run.model, run.graph).dtype == torch.float64
    assert example_inputs(model, run.graph).dtype == torch.float32
