"""Networks that draw random numbers, break ties, or hold widths as numbers: what a place by place comparison says."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.wide import Net, check_split, linears, sample


def traced(forward: Callable[..., object]) -> s3d.ChannelGraph:
    """Trace a network whose group b comes in or out of a function, between groups that are fine."""
    modules = linears((6, 5), (5, 8), (8, 7), (7, 3))
    model = Net(lambda m, x: forward(m, m.b(m.a(x).tanh()).tanh(), x), **modules).double().eval()
    return s3d.trace(model, sample(9, 6))


def rest(m: nn.Module, h: Tensor) -> Tensor:
    return m.d(m.c(h).tanh())


NOISY = {
    "noise on the outputs": lambda y: y + 0.1 * torch.randn_like(y),
    "a sample of a normal distribution": lambda y: torch.distributions.Normal(y, 1.0).rsample(),
    "noise for each sample": lambda y: y * torch.rand(len(y), 1),
    "a multinomial": lambda y: y[torch.multinomial(torch.ones(len(y)), len(y))],
    "a Bernoulli gate": lambda y: y * torch.bernoulli(torch.full((len(y), 1), 0.5)),
    "dropout": lambda y: F.dropout(y, 0.5, training=True),
}


@pytest.mark.parametrize("name", NOISY)
def test_a_width_used_as_a_number_is_seen_among_random_numbers(name):
    noisy = NOISY[name]
    assert set(traced(lambda m, h, x: noisy(rest(m, h))).widths) == {"a", "b", "c"}
    graph = traced(lambda m, h, x: noisy(rest(m, h * h.shape[1] ** -0.5)))
    assert set(graph.widths) == {"a", "c"}
    assert "mul in the model" in graph["b"].reason
    assert "uses a width as a number; write a constant in its place" in graph["b"].reason


def test_random_numbers_before_channels_whose_draws_shift():
    """What is drawn for the channels of one group shifts all that is drawn afterwards."""

    def forward(m: nn.Module, h: Tensor, x: Tensor) -> Tensor:
        return rest(m, F.dropout(h, 0.5, training=True)) + torch.randn(len(h), 3)

    assert set(traced(forward).widths) == {"a", "b", "c"}


def test_a_variational_autoencoder():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.mean, self.log = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)
            self.decoder, self.out = nn.Linear(4, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            h = self.encoder(x).tanh()
            mean, log = self.mean(h), self.log(h)
            z = mean + torch.exp(log / 2) * torch.randn_like(mean)
            return self.out(self.decoder(z).tanh()), mean, log

    torch.manual_seed(0)
    graph = s3d.trace(Net().double(), sample(5, 6))
    assert set(graph.widths) == {"encoder", "decoder"}


def test_noise_for_every_channel_has_no_copies():
    graph = traced(lambda m, h, x: rest(m, torch.distributions.Normal(h, 1.0).rsample()))
    assert "b" not in graph.widths


@pytest.mark.parametrize("count", [3, 9])
def test_ties_that_are_broken_otherwise_are_no_change(count):
    """As a fresh detector: all scores are equal but for rounding, and the best boxes are picked by them."""

    def forward(m: nn.Module, h: Tensor, x: Tensor) -> Tensor:
        boxes = rest(m, h)
        scores = 1 + 1e-13 * boxes.sum(1).sigmoid()
        return boxes[scores.topk(count).indices]

    assert set(traced(forward).widths) == {"a", "b", "c"}


WITH_NUMBERS = {
    "a view": (lambda h: h.view(-1, 8), r"view .* the sizes \(-1, 8\)"),
    "a reshape": (lambda h: h.reshape(len(h), 8), r"reshape .* the sizes \(9, 8\)"),
    "heads": (lambda h: h.reshape(-1, 2, 4).flatten(1), r"reshape .* the sizes \(-1, 2, 4\)"),
    "unflatten": (lambda h: h.unflatten(1, (2, 4)).flatten(1), r"unflatten .* the sizes"),
    "split": (lambda h: sum(h.split((4, 4), 1)).repeat(1, 2), r"split .* the widths \(4, 4\) .*write chunk\(2, 1\)"),
    "unequal": (lambda h: torch.cat(h.split([3, 5], 1)[::-1], 1), r"split .* the widths \(3, 5\) .*one layer for each"),
    "narrow": (lambda h: torch.cat([h.narrow(1, 4, 4), h.narrow(1, 0, 4)], 1), "narrow .* the bounds"),
    "slices": (lambda h: torch.cat([h[:, :4], h[:, 4:].sin()], 1), r"getitem .* the bounds \[:, :4\]"),
    "another way": (lambda h: h.relu() if h.shape[1] > 8 else h.sin(), "does a width choose the way"),
    "a tensor": (lambda h: h / torch.tensor(float(h.shape[1])), "div .* gives other values"),
}


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_numbers_in_the_code_are_named(name):
    function, said = WITH_NUMBERS[name]
    graph = traced(lambda m, h, x: rest(m, function(h)))
    assert set(graph.widths) == {"a", "c"}
    assert re.search(said, graph["b"].reason), graph["b"].reason


def checked(h: Tensor) -> Tensor:
    assert h.shape[1] == 8
    return h


def unpacked(h: Tensor) -> Tensor:
    eight = h.shape[1]
    if eight != 8:
        raise ValueError(f"{eight} channels")
    return h


@pytest.mark.parametrize(("check", "said"), [(checked, "[Aa]ssert.*"), (unpacked, "[0-9]+ channels")])
def test_a_check_is_traced_back_to_the_group_that_it_looks_at(check, said):
    graph = traced(lambda m, h, x: rest(m, check(h)))
    assert set(graph.widths) == {"a", "c"}
    assert re.search(f"{said}.*raised in the model \\(test_side_by_side.py", graph["b"].reason)


def test_slices_that_are_put_together_again_are_no_change():
    modules = linears((6, 8), (8, 3))
    model = Net(lambda m, x: m.b(torch.cat([(h := m.a(x))[:, :4], h[:, 4:]], 1)), **modules).double()
    graph = s3d.trace(model, sample(5, 6))
    assert set(graph.widths) == {"a"}
    check_split(model, sample(5, 6), graph)
