import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from tests.cases import BY_NAME, measured, operator


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("conv-bn-relu", "1", "BatchNorm2d"),
        ("residual-relu", "reduce_norm", "BatchNorm2d"),
        ("pool-flatten-gelu", "6", "Dropout"),
    ],
)
def test_random_layers_in_training_mode_are_refused_by_name(name, layer, kind):
    case = BY_NAME[name]
    model = case.model()
    model.get_submodule(layer).train()
    with pytest.raises(s3d.ModelError, match=f"^{layer}: expected evaluation mode, got a {kind} in training mode"):
        operator(case, model)


def test_a_random_activation_in_training_mode_is_refused():
    case, model = BY_NAME["mlp-relu"], nn.Sequential(nn.Linear(4, 5), nn.RReLU(), nn.Linear(5, 3)).double()
    with pytest.raises(s3d.ModelError, match="1: expected evaluation mode, got a RReLU in training mode"):
        operator(case, model)


def test_training_mode_of_layers_without_randomness_is_accepted():
    case = BY_NAME["pool-flatten-gelu"]
    model = case.model().train()
    model[6].p = 0
    assert torch.equal(operator(case, model).dense("0"), measured(case).op.dense("0"))


@pytest.mark.parametrize(
    ("drop", "accepted"),
    [
        (lambda x: F.dropout(x, 0.5), False),
        (lambda x: F.dropout(x, p=0.1, training=True), False),
        (lambda x: torch.dropout(x, 0.5, train=True), False),
        (lambda x: F.alpha_dropout(x, 0.5, True), False),
        (lambda x: F.dropout(x, 0.5, False), True),
        (lambda x: F.dropout(x, 0.0), True),
        (lambda x: F.alpha_dropout(x, 0.5), True),
    ],
)
def test_dropout_called_as_a_function(drop, accepted):
    class Drops(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[1](drop(torch.tanh(self[0](x))))

    torch.manual_seed(0)
    case, model = BY_NAME["mlp-tanh"], Drops(nn.Linear(4, 5), nn.Linear(5, 3)).double().eval()
    if accepted:
        assert operator(case, model).dense("0").abs().max() > 1e-4
    else:
        with pytest.raises(s3d.ModelError, match="dropout: expected training=False during curvature, got a call"):
            operator(case, model)


def test_a_graph_of_another_model_is_refused():
    case = BY_NAME["mlp-relu"]
    other = nn.Sequential(*case.model(), nn.Linear(3, 3).double())
    with pytest.raises(s3d.ModelError, match=r"5\.weight: expected no such parameter, got one of shape"):
        s3d.SplittingOperator(other, measured(case).graph, [case.batch()], case.loss_fn)


def test_a_graph_without_splittable_groups_is_refused():
    model = nn.Linear(4, 3).double()
    case = BY_NAME["mlp-relu"]
    with pytest.raises(s3d.ModelError, match="graph: expected at least one splittable group, got none"):
        operator(case, model)
