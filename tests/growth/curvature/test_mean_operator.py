import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.curvature.mean_operator import MeanOperator
from tests.cases import all_cases, operator, random_vectors
from tests.matrices import random_matrices
from tests.reference import DenseOperator


@all_cases
def test_the_mean_over_minibatches_is_the_mean_over_all_samples(case):
    model = case.model()
    x, y = case.batch(9)
    whole = operator(case, model, (x, y))
    parts = operator(case, model, (x[:2], y[:2]), (x[2:3], y[2:3]), (x[3:], y[3:]))
    assert parts.samples == whole.samples == 9
    assert len(parts.parts) == 3
    for name in whole.shapes:
        torch.testing.assert_close(parts.dense(name), whole.dense(name), rtol=1e-9, atol=1e-14)


def mean_of(*samples: int) -> tuple[MeanOperator, list[torch.Tensor]]:
    matrices = [random_matrices(2, 3, seed) for seed in range(len(samples))]
    parts = [DenseOperator({"group": S}) for S in matrices]
    for part, count in zip(parts, samples, strict=True):
        part.samples, part.passes = count, 2.0 * count
    return MeanOperator(parts, {"group": (2, 3)}, torch.float64, "cpu"), matrices


def test_parts_are_weighted_by_their_samples():
    op, matrices = mean_of(1, 2, 5)
    mean = sum(share * S for share, S in zip((1 / 8, 2 / 8, 5 / 8), matrices, strict=True))
    assert op.samples == 8
    assert op.passes == pytest.approx((1 * 2 + 2 * 4 + 5 * 10) / 8)
    torch.testing.assert_close(op.dense("group"), mean)
    vectors = random_vectors(op)
    expected = torch.einsum("nij,nj->ni", mean, vectors["group"])
    torch.testing.assert_close(op.matvec(vectors)["group"], expected)


@pytest.mark.parametrize("count", [1, 2, 8, 19])
def test_folds_are_consecutive_parts(count):
    op, _ = mean_of(*range(1, count + 1))
    assert op.folds is op.folds
    assert len(op.folds) == min(8, count)
    assert [part for fold in op.folds for part in fold.parts] == op.parts
    sizes = [len(fold.parts) for fold in op.folds]
    assert max(sizes) - min(sizes) <= 1


def test_a_group_that_is_not_there_is_refused():
    op, _ = mean_of(1, 1)
    with pytest.raises(s3d.ModelError, match="other: expected a splittable group, one of group"):
        op.dense("other")
    with pytest.raises(s3d.ModelError, match="other: expected a splittable group, one of group"):
        op.to_scipy("other", 0)
    with pytest.raises(s3d.ConfigError, match="neuron: expected a number from 0 to 1, got -1"):
        op.to_scipy("group", -1)
