import pytest
import torch
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.curvature.batch import samples_of, scalar_loss
from tests.cases import BY_NAME, measured


def test_a_loss_that_is_no_scalar_is_refused():
    case = BY_NAME["mlp-relu"]
    with pytest.raises(s3d.ModelError, match=r"loss_fn: expected a scalar, .* got shape \(6,\)"):
        s3d.SplittingOperator(
            measured(case).model,
            measured(case).graph,
            [case.batch()],
            lambda out, y: F.cross_entropy(out, y, reduction="none"),
        )


def test_the_first_dimension_of_the_first_input_counts_the_samples():
    x, y = torch.zeros(6, 4), torch.zeros(6)
    for inputs in (x, (x, torch.zeros(3)), [x], {"x": x}):
        assert samples_of((inputs, y)) == 6


def test_a_scalar_is_returned():
    x = torch.zeros(3)
    assert scalar_loss(F.mse_loss, x, x + 2).item() == 4
