import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.cut import Cut
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer
from tests.cases import BY_NAME, all_cases, measured, operator


def test_frozen_parameters_and_no_grad_change_nothing():
    case = BY_NAME["residual-relu"]
    frozen = case.model().requires_grad_(False)
    with torch.no_grad():
        op = operator(case, frozen)
        for name in op.shapes:
            torch.testing.assert_close(op.dense(name), measured(case).op.dense(name), rtol=0, atol=1e-15)


def test_a_layer_may_read_a_buffer():
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.linspace(-1, 1, 8).reshape(2, 4))
            self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(x) * self.b(torch.tanh(self.a(self.table))).sum(0)

    torch.manual_seed(0)
    op = operator(BY_NAME["mlp-tanh"], Table().double())
    assert op.dense("a").abs().max() > 1e-4


def test_a_part_of_a_model_without_gradients_is_refused_by_name():
    class Silent(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                hidden = torch.tanh(self[1](torch.tanh(self[0](x))))
            return self[2](hidden)

    torch.manual_seed(0)
    model = Silent(nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    with pytest.raises(s3d.ModelError, match=r"1\.weight: expected a layer with gradients, got one under no_grad"):
        operator(BY_NAME["mlp-tanh"], model)


def test_a_branch_without_effect_on_the_loss():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = torch.tanh(self.a(x))
            return self.b(hidden), self.unused(hidden)

    torch.manual_seed(0)
    case, model = BY_NAME["mlp-tanh"], Branch().double()
    x, y = case.batch()
    op = s3d.SplittingOperator(model, s3d.trace(model, x), [(x, y)], lambda out, y: F.cross_entropy(out[0], y))
    alone = operator(case, nn.Sequential(model.a, nn.Tanh(), model.b))
    assert torch.equal(op.dense("a"), alone.dense("0"))


@all_cases
def test_cutting_changes_no_output(case):
    run, (x, y) = measured(case), case.batch()
    cut = Cut(run.model, run.graph, 3.0, ZeroBuffer())
    with cut:
        outputs = run.model(x)
    torch.testing.assert_close(outputs, run.model(x))
    weights = {layer.weight for group in run.graph.splittable_groups for layer in group.producers}
    assert {layer.weight for layer, _ in cut.producers} == weights
    cut.linearize(case.loss_fn(outputs, y))
    leaves = {producer.value for _, producer in cut.producers}
    assert leaves & set().union(*(segment.inputs for segment in cut.tape.segments()))
