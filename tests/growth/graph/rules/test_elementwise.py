import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.wide import Fixed, Number, check_accepted, check_refused, check_rest_grows, linears

REFUSED = {
    "a scale that also does something else": (
        lambda m, x: m.b(m.a(x) * m.gamma.view(1, -1)) + m.gamma.sum(),
        linears((4, 3), (3, 2)) | {"gamma": Number(3)},
        (5, 4),
        "the parameter gamma also enters sum",
    ),
    "a comparison of two layers": (
        lambda m, x: m.b(torch.where((h := m.a(x)) < m.c(x), 0.1 * h, h)),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        "lt compares its channels",
    ),
    "a kink by a sign": (
        lambda m, x: m.b((h := m.a(x)) * h.sign()),
        linears((4, 3), (3, 2)),
        (5, 4),
        "sign compares its channels",
    ),
    "a scale that mixes its entries": (
        lambda m, x: m.b(m.a(x) * m.gamma.softmax(0)),
        linears((4, 3), (3, 2)) | {"gamma": Number(3)},
        (5, 4),
        "mul joins it with a tensor that does not grow with it",
    ),
    "half of the entries of a scale": (
        lambda m, x: m.b(m.a(x) * m.gamma[:3]),
        linears((4, 3), (3, 2)) | {"gamma": Number(6)},
        (5, 4),
        "mul joins it with a tensor that does not grow with it",
    ),
    "a scale that is an output": (
        lambda m, x: (m.b(m.a(x) * m.gamma.exp()), m.gamma),
        linears((4, 3), (3, 2)) | {"gamma": Number(3)},
        (5, 4),
        "the parameter gamma also enters the outputs of the network",
    ),
    "a mask of the channels": (
        lambda m, x: m.b(m.a(x).masked_fill(torch.tensor([True, False, False]), 0.5)),
        linears((4, 3), (3, 2)),
        (5, 4),
        "masked_fill joins it with a tensor that does not grow with it",
    ),
    "a sum with the inputs": (
        lambda m, x: m.b(m.a(x) + x),
        linears((4, 4), (4, 2)),
        (5, 4),
        "add joins it with a tensor that does not grow with it",
    ),
    "a product of each channel with each of more": (
        lambda m, x: m.c((m.a(x).unsqueeze(2) * m.b(x).unsqueeze(1)).flatten(1)),
        linears((4, 3), (4, 4), (12, 2)),
        (5, 4),
        "mul repeats it along the channels of another tensor",
    ),
    "channels beside what is filled once and changed": (
        lambda m, x: m.b(m.a(x) + torch.zeros(5, 3).to(x).add_(torch.eye(5, 3))),
        linears((4, 3), (3, 2)),
        (5, 4),
        "add joins it with a tensor that does not grow with it",
    ),
    "channels added at places of their own": (
        lambda m, x: m.b(torch.zeros(5, 3).to(x).index_add(1, torch.tensor([2, 0, 1]), m.a(x))),
        linears((4, 3), (3, 2)),
        (5, 4),
        "index_add adds to some of its channels alone",
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


def selective_scan(m: nn.Module, x: Tensor) -> Tensor:
    """Mamba: every channel has a state, whose parts are fed and read by vectors that all channels have in common."""
    h = m.a(x)
    step, fed, read = F.softplus(m.step(h)), m.c(h), m.d(h)
    decay = torch.exp(-torch.exp(m.log_decay)[None, None] * step[..., None])
    more = step[..., None] * fed[:, :, None] * h[..., None]
    state, outputs = torch.zeros(*h[:, 0].shape, fed.shape[-1], dtype=x.dtype), []
    for t in range(x.shape[1]):
        state = decay[:, t] * state + more[:, t]
        outputs.append((state @ read[:, t, :, None])[..., 0])
    return m.b(torch.stack(outputs, -1).mT * F.silu(m.gate(x)) + h * m.skip).mean(1)


ACCEPTED = {
    "a selective scan": (
        selective_scan,
        linears((4, 5), (5, 2), (5, 2), (5, 2))
        | {"step": nn.Linear(5, 5), "gate": nn.Linear(4, 5), "skip": Number(5), "log_decay": Number(5, 2)},
        (3, 4, 4),
        {"a": 5},
    ),
    "a product of each channel with each of fewer": (
        lambda m, x: m.c((m.a(x).unsqueeze(2) * m.b(x).unsqueeze(1)).tanh().flatten(1)),
        linears((4, 3), (4, 2), (6, 2)),
        (5, 4),
        {"a": 3},
    ),
    "what is filled with one number": (
        lambda m, x: m.b(torch.maximum(h := m.a(x), h.new_full(h.shape, 0.1)) + torch.ones(5, h.shape[1]).to(x)),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "rows that are added up": (
        lambda m, x: m.b(torch.zeros_like(h := m.a(x)).index_add_(0, torch.tensor([0, 2, 2, 1, 0]), h).tanh()),
        linears((4, 3), (3, 2)),
        (5, 4),
        {"a": 3},
    ),
    "the type of another tensor": (
        lambda m, x: m.b((h := m.a(x)).type_as(x) * m.c(x).to(h)),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
    "a scale that is reshaped": (
        lambda m, x: m.b(m.a(x) * m.gamma.view(1, -1, 1) + m.beta[None, :, None]).mean(2),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Conv1d(3, 2, 1), "gamma": Number(3), "beta": Fixed(3)},
        (5, 2, 5),
        {"a": 3},
    ),
    "a scale that is computed": (
        lambda m, x: m.b(m.a(x).tanh() * F.softplus(m.gamma).exp() / (1 + m.beta**2).sqrt()),
        linears((4, 3), (3, 2)) | {"gamma": Number(3), "beta": Number(1, 3)},
        (5, 4),
        {"a": 3},
    ),
    "a scale of two tensors, one of which is of another scale": (
        lambda m, x: m.b((m.a(x) * (m.gamma * m.beta)).tanh() * m.beta),
        linears((4, 3), (3, 2)) | {"gamma": Number(3), "beta": Number(3)},
        (5, 4),
        {"a": 3},
    ),
    "running statistics by hand": (
        lambda m, x: m.b(((m.a(x) - m.norm.running_mean) * (m.norm.running_var + 1e-3).rsqrt()).tanh()),
        linears((4, 3), (3, 2)) | {"norm": nn.BatchNorm1d(3, affine=False)},
        (5, 4),
        {"a": 3},
    ),
    "one scale serves two layers": (
        lambda m, x: m.b((m.a(x) * m.gamma).tanh()) + m.d((m.c(x) * m.gamma).tanh()),
        linears((4, 3), (3, 2), (4, 3), (3, 2)) | {"gamma": Number(3)},
        (5, 4),
        {"a": 3},
    ),
    "a learnt temperature": (
        lambda m, x: m.b((m.a(x) * m.scale.expand(5, 1)).tanh()),
        linears((4, 3), (3, 2)) | {"scale": Number(1)},
        (5, 4),
        {"a": 3},
    ),
    "a sum and a product in one": (
        lambda m, x: m.b(torch.addcmul(m.beta, m.gamma, m.a(x).tanh()).lerp(m.c(x), 0.3)),
        linears((4, 3), (3, 2), (4, 3)) | {"gamma": Number(3), "beta": Number(1, 3)},
        (5, 4),
        {"a": 3},
    ),
    "elements that a mask chooses": (
        lambda m, x: m.b(torch.where(x[:, :1] > 0, m.a(x).tanh(), m.c(x)).masked_fill(x[:, 1:2] > 0, 0.5)),
        linears((4, 3), (3, 2), (4, 3)),
        (5, 4),
        {"a": 3},
    ),
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
