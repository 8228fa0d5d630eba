import torch

from nni_s3d.growth.graph.channels import Role
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place
from tests.cases import all_cases, measured, random_plan


@all_cases
def test_what_grows_is_what_gets_longer(case):
    run = measured(case)
    plan = random_plan(case, seed=3)
    copies = run.graph.per_channel(plan.copies)
    ones = torch.ones(int(copies.sum()), dtype=torch.float64)
    growth = AxisGrowth(run.graph, NewChannels(copies, ones, ones), slots_in_place(run.graph, copies))
    tensors = dict((*run.model.named_parameters(), *run.model.named_buffers()))
    values = growth.values(tensors)
    for name, value in values.items():
        into = torch.full(growth.shape(name, tensors[name]), 7.0, dtype=value.dtype)
        with torch.no_grad():
            growth.write(name, tensors[name], into)
        assert torch.equal(into, value)
    assert values.keys() == {name for name in tensors if growth.grows(name)}
    for name, value in values.items():
        assert value.numel() > tensors[name].numel()
        assert torch.isin(value, tensors[name]).all()
    for axis, slots in zip(run.graph.axes(), growth.slots, strict=True):
        shape = (values.get(axis.tensor, tensors[axis.tensor])).shape
        assert shape[axis.dim] * (axis.blocks if axis.role is Role.COLUMN else 1) == len(slots)
