import torch
from torch import nn

from nni_s3d.growth.rehearsal.awake import awake, exchange


def test_parameters_that_are_nearly_zero_are_drawn_and_no_others():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.BatchNorm1d(2))
    nn.init.zeros_(model[1].weight)
    drawn = awake(model)
    assert set(drawn) == {id(model[1].weight), id(model[2].bias)}
    assert all(parameter.abs().max() > 0.1 for parameter in drawn.values())
    assert torch.equal(awake(model)[id(model[1].weight)], drawn[id(model[1].weight)])


def test_parameters_are_exchanged_in_all_their_places():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    old = model[1].weight = model[0].weight
    new = nn.Parameter(torch.ones(3, 3))
    exchange(model, {id(old): new})
    assert model[0].weight is model[1].weight is new


def test_torchscript_is_left_alone():
    model = nn.Sequential(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), nn.Linear(2, 2))
    nn.init.zeros_(model[1].weight)
    exchange(model, awake(model))
    assert model[1].weight.abs().max() > 0.1
