import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.carriers import Carriers
from nni_s3d.growth.graph.read import read_graph
from nni_s3d.growth.modules import untouched_random_state
from nni_s3d.growth.rehearsal.careful import Careful
from nni_s3d.growth.rehearsal.pattern import rehearsed_copies
from nni_s3d.growth.rehearsal.rehearsal import _unmoved
from tests import reference
from tests.cases import all_cases
from tests.wide import WIDE, Net, random_case


def failures(model: nn.Module, inputs: object, careful: Careful | None = None):
    graph = read_graph(model, inputs)
    careful = careful or Careful(model, inputs, graph, {}, training=False)
    return careful.failures(graph, _unmoved(graph, rehearsed_copies(graph, graph.splittable_groups)))


@torch.no_grad()
@all_cases
@pytest.mark.parametrize("precision", ["its own", "double"])
def test_no_place_fails_where_growth_is_exact(case, precision):
    model, inputs = case.model().float(), case.inputs().float()
    with reference.untouched(model), untouched_random_state():
        double = Careful.in_float64(model, inputs, read_graph(model, inputs), training=False)
        assert failures(model, inputs, double if precision == "double" else None) == []


def test_weights_that_something_else_than_a_product_takes_are_found_out(monkeypatch):
    """Products take weights themselves here, so the outputs are compared when nothing else is to be seen."""
    monkeypatch.setattr(Carriers, "_other_use", lambda *_: "")
    modules = {"keys": nn.Linear(4, 3), "queries": nn.Linear(4, 3), "read": nn.Linear(3, 2)}
    model = Net(lambda m, x: m.read((m.queries(x).tanh() @ m.keys(x).mT) @ m.keys(x)), **modules).double()
    group = s3d.trace(model, torch.randn(2, 5, 4, dtype=torch.float64))["queries"]
    assert group.reason == "the model computes something else when it grows"


@torch.no_grad()
@pytest.mark.parametrize("case", [*WIDE, *map(random_case, range(30))], ids=lambda case: case.name)
def test_no_place_fails_in_any_structure(case):
    """Shuffles, cuts and concatenations among them: copies lie where the grown network has them."""
    model, inputs = case.model(), case.inputs()
    graph = s3d.trace(model, inputs)
    careful = Careful(model, inputs, graph, {}, training=False)
    assert not careful.failures(graph, _unmoved(graph, rehearsed_copies(graph, graph.splittable_groups)))


@torch.no_grad()
def test_a_model_that_wants_its_own_precision_has_no_double():
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype is torch.float32
            return self.a(x)

    class Infinite(Single):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).log()

    for model in (Single(), Infinite()):
        assert Careful.in_float64(model, torch.randn(3, 4), read_graph(model, torch.randn(3, 4)), False) is None
