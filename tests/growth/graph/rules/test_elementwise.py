import pytest
import torch
from torch import nn

from tests.wide import Number, check_accepted, check_refused, check_rest_grows, linears

REFUSED = {
    "a sum with the inputs": (
        lambda m, x: m.b(m.a(x) + x),
        linears((4, 4), (4, 2)),
        (5, 4),
        "add joins it with a tensor that does not grow with it",
    ),
    "a product of each channel with each": (
        lambda m, x: m.c((m.a(x).unsqueeze(2) * m.b(x).unsqueeze(1)).flatten(1)),
        linears((4, 3), (4, 3), (9, 2)),
        (5, 4),
        "mul repeats it along the channels of another tensor",
    ),
    "a bound that has channels": (
        lambda m, x: m.b(m.c(x).clamp(min=m.a(x))),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        "clamp takes it as an option",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_of_a_network_still_grows(name):
    check_rest_grows(*REFUSED[name])


ACCEPTED = {
    "a gate of one channel on many": (
        lambda m, x: m.b((m.a(x) * torch.sigmoid(m.c(x))).mean((2, 3))),
        {"a": nn.Conv2d(2, 3, 1), "b": nn.Linear(3, 2), "c": nn.Conv2d(2, 1, 1)},
        (5, 2, 3, 3),
        {"a": 3},
    ),
    "an affine function of one neuron, one sample": (
        lambda m, x: (lambda h: m.b(h) + m.c(h + 1))(m.a(x).tanh()),
        linears((4, 1), (1, 2), (1, 2)),
        (1, 4),
        {"a": 1},
    ),
    "products and powers of channels": (
        lambda m, x: m.b((m.a(x) * m.c(x).exp() - m.a.bias.new_tensor(2)) ** 2 / 3),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "factors of the positions": (
        lambda m, x: m.b((m.a(x) * x[:, :1, 1:]).tanh() + m.position).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1)} | {"position": Number(1, 1, 4)},
        (5, 2, 5),
        {"a": 3},
    ),
    "dropout in evaluation mode": (
        lambda m, x: m.b(m.drop(m.a(x))),
        linears((4, 3), (3, 2)) | {"drop": nn.Dropout(0.9)},
        (5, 4),
        {"a": 3},
    ),
}


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_split_exactly_is_accepted(name, copies):
    check_accepted(*ACCEPTED[name], copies)
