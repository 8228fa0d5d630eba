import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.surgery.widening import widen
from tests.cases import BY_NAME, measured
from tests.wide import WIDE

CASES = [*WIDE, BY_NAME["separable-silu"], BY_NAME["residual-silu"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("more", [0, 4, 8, 24])
def test_widths_come_out_as_asked(case, more):
    run = measured(case)
    widths = {name: width + more for name, width in run.graph.widths.items()}
    model = widen(run.model, run.graph, widths)
    graph = s3d.trace(model, case.inputs())
    assert graph.widths == widths
    assert model(case.inputs()).shape == run.model(case.inputs()).shape


def test_new_weights_are_fresh_and_unlike_each_other():
    run = measured(BY_NAME["mlp-tanh"])
    torch.manual_seed(0)
    model = widen(run.model, run.graph, {"0": 15})
    assert model[0].weight.unique(dim=0).shape[0] == 15
    assert not torch.isin(run.model[0].weight, model[0].weight).any()
    assert torch.equal(model[4].weight, run.model[4].weight)


@pytest.mark.parametrize(
    ("widths", "message"),
    [({"0": 4}, "expected at least 5 for 0, as it is, got 4"), ({"9": 4}, r"expected splittable groups \(0, 2\)")],
)
def test_other_widths_are_refused(widths, message):
    run = measured(BY_NAME["mlp-tanh"])
    with pytest.raises(s3d.ConfigError, match=message):
        widen(run.model, run.graph, widths)


def test_widths_that_leave_blocks_unequal_are_refused():
    run = measured(next(case for case in WIDE if case.name == "grouped"))
    with pytest.raises(s3d.ModelError, match="expected 2 equal parts"):
        widen(run.model, run.graph, {"grouped": 7})
