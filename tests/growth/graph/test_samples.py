"""How many samples a run is about, by what goes in, what comes out, and what layers take."""

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.samples import SampleSizes
from tests.wide import Net


def t(*shape: int) -> Tensor:
    return torch.zeros(shape)


RUNS = {
    "a batch": (t(4, 3), t(4, 2), 4),
    "several inputs": ((t(4, 3), t(4, 7)), {"a": t(4, 2), "b": t(4)}, 4),
    "keywords": ({"x": t(4, 3)}, t(4, 2), 4),
    "the first input is no batch": ((t(2, 9), t(4, 3)), t(4, 2), 4),
    "a number comes first": ((torch.tensor(0.5), t(4, 3)), t(4, 3), 4),
    "a loss": (t(4, 3), torch.tensor(1.0), 4),
    "a loss and scores": (t(4, 3), (torch.tensor(1.0), t(4, 2)), 4),
    "several rows for each sample": (t(4, 6), t(24, 9), 4),
    "samples behind the steps": (t(4, 1, 8, 8), t(7, 4, 5), 4),
    "one graph and its class": (t(9, 3), t(1, 2), 1),
    "one vector": (t(5), t(3), 1),
    "images of a list": (([t(3, 9, 9), t(3, 8, 8)],), t(2, 5), 2),
    "images of a list, and detections": (([t(3, 9, 9), t(3, 8, 8)],), [{"boxes": t(7, 4)}, {"boxes": t(0, 4)}], 2),
    "images by keyword": ({"images": [t(3, 9, 9), t(3, 8, 8), t(3, 2, 2)]}, t(3, 5), 3),
    "levels of a batch": (([t(4, 3, 9, 9), t(4, 3, 5, 5)],), [t(4, 3, 9, 9), t(4, 3, 5, 5)], 4),
    "a list of levels that meet": (([t(4, 3, 9, 9), t(4, 3, 5, 5)],), t(4, 5), 4),
    "a list of arguments": ([t(4, 3), t(4, 3)], t(4, 2), 4),
    "a list of other things": ((t(4, 3), [1, 2, 3]), t(4, 2), 4),
}


@pytest.mark.parametrize("name", RUNS)
def test_samples_are_what_inputs_and_outputs_have_in_common(name):
    inputs, outputs, samples = RUNS[name]
    assert SampleSizes().count(inputs, outputs) == samples


def attention() -> nn.Module:
    return Net(lambda m, x: m.a(x, x, x)[0], a=nn.MultiheadAttention(6, 2, batch_first=True))


def last(layer: nn.Module) -> nn.Module:
    return Net(lambda m, x: m.layer(x)[0], layer=layer)


LAYERS = {
    "a vector": (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 5)), (5,)),
    "a vector and its score": (Net(lambda m, x: m.a(x)[0], a=nn.Linear(5, 1)), (5,)),
    "an image": (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)), (3, 5, 5)),
    "an image to enlarge": (nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 3, 1)), (3, 5, 5)),
    "an image and its loss": (Net(lambda m, x: m.a(x).square().mean(), a=nn.Conv2d(3, 3, 3)), (3, 5, 5)),
    "a row times a matrix": (Net(lambda m, x: x @ m.w, w=nn.Parameter(torch.zeros(5, 5))), (5,)),
    "a sequence": (last(nn.GRU(4, 6, batch_first=True)), (7, 4)),
    "tokens": (attention(), (7, 6)),
    "tokens behind a layer": (nn.Sequential(nn.Linear(4, 6), nn.Tanh(), attention()), (7, 4)),
}


def test_a_sequence_alone_is_one_sample():
    assert s3d.count(s3d.trace(last(nn.LSTM(4, 6)), torch.randn(7, 4))).macs == 7 * 4 * 6 * (4 + 6)


@pytest.mark.parametrize("name", LAYERS)
def test_what_comes_alone_costs_as_much_as_in_a_batch_of_one(name):
    model, shape = LAYERS[name]
    costs = {s3d.count(s3d.trace(model.eval(), torch.randn(size))) for size in (shape, (1, *shape))}
    assert len(costs) == 1


def test_samples_lie_along_the_first_dimension():
    """Also of layers that take it for the steps of sequences: what a batch is, is said in one place."""
    model = last(nn.LSTM(4, 6)).eval()
    assert s3d.count(s3d.trace(model, torch.randn(7, 2, 4))).macs == 2 * 4 * 6 * (4 + 6)
