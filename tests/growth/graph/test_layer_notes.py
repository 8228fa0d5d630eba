"""Layers that are called several times, and stacks of weights, of which every call is for one block."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.growth.graph.registered import Case, check_predicted_change, check_unmoved_split, check_widths
from tests.wide import Net, Number, check_refused, linears, sample


class Experts(nn.Module):
    """A mixture of experts as in transformers: gates and values of all experts in one stack, a router for each row."""

    def __init__(self, experts: int = 4, bias: bool = False) -> None:
        super().__init__()
        self.before, self.router, self.head = nn.Linear(4, 3), nn.Linear(3, experts), nn.Linear(3, 2)
        self.gate_up, self.down = Number(experts, 6, 3), Number(experts, 3, 3)
        self.bias = Number(experts, 6) if bias else [None] * experts

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        best = self.router(x).softmax(-1).topk(2, dim=-1)
        out = torch.zeros_like(x)
        for e, gate_up in enumerate(self.gate_up):
            rows, place = torch.where(best.indices == e)
            if len(rows):
                gate, up = F.linear(x[rows], gate_up, self.bias[e]).chunk(2, dim=-1)
                y = F.linear(F.silu(gate) * up, self.down[e]) * best.values[rows, place, None]
                out.index_add_(0, rows, y)
        return self.head(out.tanh())


class Pyramid(nn.Module):
    """A head that every level of a pyramid goes through, as in detectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 1), nn.Conv1d(4, 4, 3, stride=2)
        self.head, self.norm, self.out = nn.Conv1d(4, 5, 1), nn.BatchNorm1d(5), nn.Conv1d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        two = self.second(F.silu(one))
        return torch.cat([self.out(F.silu(self.norm(self.head(level.tanh())))).mean(2) for level in (one, two)], 1)


def again(m: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer to what it has put out."""
    for _ in range(3):
        x = torch.tanh(m.b(x))
    return m.c(x)


def seeded(build):
    def built() -> nn.Module:
        torch.manual_seed(2)
        return build().double().eval()

    return built


CASES = {
    "a layer called three times": Case(
        seeded(lambda: Net(lambda m, x: again(m, torch.tanh(m.a(x))), **linears((4, 3), (3, 3), (3, 2)))),
        (6, 4),
        {"a": 3},
    ),
    "two calls that meet": Case(
        seeded(lambda: Net(lambda m, x: m.b(m.a(x[:, :4]).tanh() * m.a(x[:, 4:])), **linears((4, 3), (3, 2)))),
        (6, 8),
        {"a": 3},
    ),
    "a head of a pyramid": Case(seeded(Pyramid), (6, 3, 7), {"first": 4, "head": 5}),
    "weight norm called twice": Case(
        seeded(
            lambda: Net(
                lambda m, x: m.b(F.silu(m.a(x[:, :4])) + m.a(x[:, 4:]).tanh()),
                a=nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
                b=nn.Linear(3, 2),
            )
        ),
        (6, 8),
        {"a": 3},
    ),
    "experts": Case(seeded(Experts), (9, 4), {"before": 3, "gate_up": 12}),
    "experts with biases": Case(seeded(lambda: Experts(bias=True)), (9, 4), {"before": 3, "gate_up": 12}),
    "experts that no sample comes to": Case(seeded(lambda: Experts(7)), (2, 4), {"before": 3, "gate_up": 21}),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_case
def test_the_groups_are_found(case):
    check_widths(case)


@every_case
def test_splits_that_do_not_move_change_nothing(case):
    check_unmoved_split(case)


@every_case
def test_the_loss_changes_as_predicted(case):
    check_predicted_change(case)


@every_case
def test_the_matrices_are_those_of_the_definition(case):
    model, x = case.build(), sample(*case.shape)
    batch, graph = (x, torch.zeros(len(x), dtype=torch.long)), s3d.trace(model, x)
    op = s3d.SplittingOperator(model, graph, [batch], F.cross_entropy)
    plain = s3d.PlainSplittingOperator(model, graph, [batch], F.cross_entropy)
    for name in graph.widths:
        torch.testing.assert_close(op.dense(name), plain.dense(name))


def test_experts_that_no_sample_came_to_have_grown_too():
    model, few, many = CASES["experts that no sample comes to"].build(), sample(2, 4), 9 * sample(64, 4)
    graph = s3d.trace(model, few)
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, {"gate_up": torch.arange(21) % 3 + 1}, c=2.5), 0)
    assert model.router(model.before(many)).topk(2).indices.unique().numel() == 7
    torch.testing.assert_close(result.model(many), model(many), rtol=0, atol=1e-10)


def test_neurons_of_an_expert_are_its_own_rows():
    model = CASES["experts"].build()
    graph = s3d.trace(model, sample(9, 4))
    assert s3d.SplittingOperator(
        model, graph, [(sample(9, 4), torch.zeros(9, dtype=torch.long))], F.cross_entropy
    ).shapes == {"before": (3, 5 + 4 * 3), "gate_up": (12, 6)}
    unequal = s3d.plan_from_copies(graph, {"gate_up": torch.tensor([2] + [1] * 11)})
    with pytest.raises(s3d.ModelError, match=r"expected 4 equal parts where gate_up cuts its channels, got 6 to 8"):
        s3d.split(model, graph, unequal)


def test_cuts_are_known_of_experts_that_no_sample_came_to():
    class Halves(Experts):
        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            for e in (0, 2):
                first, second = F.linear(x, self.gate_up[e]).tanh().chunk(2, dim=-1)
                x = x + F.linear(first, self.down[e]) + F.linear(second, self.more[e])
            return self.head(x)

    torch.manual_seed(0)
    model = Halves()
    model.more = Number(4, 3, 3)
    graph = s3d.trace(model.double(), sample(5, 4))
    chunks = [cut.parts.shape for cut in graph.equal_parts if cut.where == "chunk"]
    assert graph.widths["gate_up"] == 24
    assert chunks == [(2, 3)] * 4


REFUSED = {
    "a layer of channels and of the input": (
        lambda m, x: m.b(m.a(m.a(x).tanh()).tanh()),
        linears((4, 4), (4, 2)),
        (5, 4),
        "a.weight is called several times, also on what has no channels",
    ),
    "a single expert": (
        lambda m, x: m.b((x @ m.a[1]).tanh()),
        linears((4, 3), (3, 2)) | {"a": Number(3, 4, 3)},
        (5, 4),
        "a single one of the 3 blocks of a has run",
    ),
    "a bias of another expert": (
        lambda m, x: m.c(F.linear(m.a(x), m.weights[0], m.biases[1])),
        linears((4, 3), (3, 2), (3, 2)) | {"weights": Number(2, 3, 3), "biases": Number(2, 3)},
        (5, 4),
        "its channels enter a linear whose weight is not a parameter of the model",
    ),
    "a stack that is also used whole": (
        lambda m, x: m.c(sum(F.linear(m.a(x), w) for w in m.weights)) + m.weights.sum(),
        linears((4, 3), (3, 2), (3, 2)) | {"weights": Number(2, 3, 3)},
        (5, 4),
        "the parameter weights also enters sum",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_exactly_is_refused_with_the_reason(name):
    check_refused(*REFUSED[name])
