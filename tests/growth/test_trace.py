import gc
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests import reference
from tests.cases import BY_NAME, all_cases
from tests.wide import Net, check_split, linears, sample


@all_cases
def test_trace_leaves_the_model_as_it_was(case):
    model = case.model()
    for index, module in enumerate(model.modules()):
        module.training = index % 2 == 0
    with reference.untouched(model):
        s3d.trace(model, case.inputs())


@pytest.fixture
def tensors_in_cycles():
    """Return a function that says which tensors wait for the garbage collector to be freed."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)

    def found() -> list[torch.Size]:
        gc.collect()
        return [x.shape for x in gc.garbage if isinstance(x, Tensor)]

    yield found
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@all_cases
def test_memory_is_free_as_soon_as_nobody_needs_it(case, tensors_in_cycles):
    model, inputs = case.model(), case.inputs()
    graph = s3d.trace(model, inputs)
    s3d.split(model, graph, s3d.plan_from_copies(graph, {}))
    assert tensors_in_cycles() == []


@all_cases
def test_trace_does_not_depend_on_the_number_of_samples(case):
    one, many = (s3d.trace(case.model(), case.inputs(n)) for n in (1, 6))
    assert str(one) == str(many)
    assert s3d.count(one) == s3d.count(many)


def test_trace_leaves_the_model_as_it_was_when_it_fails():
    model = BY_NAME["conv-bn-relu"].model().train()
    with reference.untouched(model), pytest.raises(s3d.ModelError, match="0 fails on the example inputs"):
        s3d.trace(model, torch.zeros(2, 5, 6, 6, dtype=torch.float64))


# -- what no rule sees ------------------------------------------------------------------------------------------

PRETENDERS = {
    "a reshape to sizes written as numbers": (
        lambda m, x: m.b(m.a(x).view(-1, 12)),
        {"a": nn.Conv1d(2, 3, 2), "b": nn.Linear(12, 2)},
        (5, 2, 5),
        r"the model .* when it grows: view in the model \(test_trace.py:\d+\) is given the sizes \(-1, 12\) as .*",
    ),
    "arithmetic with a width": (
        lambda m, x: m.b((h := m.a(x)) / h.shape[1]),
        linears((4, 3), (3, 2)),
        (5, 4),
        "the model computes something else when it grows: .* uses a width as a number; write a constant .*",
    ),
    "a number of channels that is checked": (
        lambda m, x: m.b(_checked(m.a(x))),
        linears((4, 3), (3, 2)),
        (5, 4),
        r"the model fails when it grows: three are wanted \(raised in the model \(test_trace.py:\d+\)\); .*",
    ),
    "a slice to a number": (
        lambda m, x: m.b((h := m.a(x))[:, :2]) + m.c(h[:, 2:]),
        linears((4, 4), (2, 2), (2, 2)),
        (5, 4),
        r"the model .* when it grows: getitem in .* is given the bounds \[:, :2\] as numbers; .*",
    ),
}


def _checked(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        raise ValueError("three are wanted")
    return x


@pytest.mark.parametrize("name", PRETENDERS)
def test_what_no_rule_sees_is_found_by_trying(name):
    forward, modules, shape, reason = PRETENDERS[name]
    before = nn.Linear(shape[-1], shape[-1]), nn.Linear(shape[-1], shape[-1])
    model = Net(lambda m, x: forward(m, m.after(m.before(x).tanh())), **modules, before=before[0], after=before[1])
    graph = s3d.trace(model.double(), sample(*shape))
    assert re.fullmatch(reason, graph["a"].reason), graph["a"].reason
    assert "before" in graph.widths
    check_split(model, sample(*shape), graph)


def test_a_model_that_draws_random_numbers_is_not_refused_for_it():
    model = Net(lambda m, x: m.b(F.dropout(m.a(x), 0.5, training=True)), **linears((4, 3), (3, 2))).double()
    assert s3d.trace(model, sample(5, 4)).widths == {"a": 3}


@pytest.mark.parametrize("inputs", ["tuple", "list", "dict"])
def test_models_with_several_inputs(inputs):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"out": self.c(torch.tanh(self.a(x) + self.b(y)))}

    x, y = sample(5, 4), sample(5, 2)
    graph = s3d.trace(Two().double(), {"tuple": (x, y), "list": [x, y], "dict": {"y": y, "x": x}}[inputs])
    assert graph.widths == {"a": 3}
    assert [str(p) for p in graph["a"].producers] == ["a", "b"]


def traced(forward: Callable[..., object], *inputs: Tensor, **modules: nn.Module) -> s3d.ChannelGraph:
    return s3d.trace(Net(forward, **modules).double(), inputs)


def test_a_branch_that_starts_at_zero_hides_nothing():
    modules = linears((4, 3), (3, 2), (4, 2)) | {"gate": nn.Parameter(torch.zeros(1))}
    graph = traced(lambda m, x: m.c(x) + m.gate * m.b((h := m.a(x)) / h.shape[1]), sample(5, 4), **modules)
    assert graph["a"].reason.startswith("the model computes something else when it grows: div in the model")


def test_infinite_scores_hide_nothing():
    def forward(m: Net, x: Tensor) -> Tensor:
        scores = m.b((h := m.a(x)) / h.shape[1])
        return torch.cat([scores, torch.full_like(scores[:, :1], -torch.inf)], 1)

    graph = traced(forward, sample(5, 4), **linears((4, 3), (3, 2)))
    assert graph["a"].reason.startswith("the model computes something else when it grows: div in the model")


def test_buffers_that_count_and_random_numbers_are_left_as_they_were():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            torch.randn(3)
            return self.b(self.a(x).tanh())

    model = Counts().double()
    with reference.untouched(model):
        graph = s3d.trace(model, sample(5, 4))
        s3d.split(model, graph, s3d.plan_from_copies(graph, {"a": torch.tensor([2, 1, 1])}))
    assert graph.widths == {"a": 3}


def test_a_model_that_keeps_its_last_result_can_be_split():
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.hidden = self.a(x).tanh()
            return self.b(self.hidden)

    model = Keeps().double()
    graph = s3d.trace(model, sample(5, 4))
    model(sample(5, 4)).sum().backward()
    check_split(model, sample(5, 4), graph)
