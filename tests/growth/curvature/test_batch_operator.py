import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.curvature.batch_operator import BatchOperator, RecomputedBatchOperator, shapes_of
from tests import reference
from tests.cases import BY_NAME, all_cases, measured, random_vectors


@all_cases
def test_shapes_are_those_of_theta(case):
    run = measured(case)
    for group in run.graph.splittable_groups:
        assert run.op.shapes[group.name] == reference.theta(run.model, group).shape


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_batches_that_are_not_kept_change_nothing(kept):
    case = BY_NAME["conv-bn-silu"]
    model, graph = case.model(), s3d.trace(case.model(), case.inputs())
    x, y = case.batch(9)
    batches = [(x[:3], y[:3]), (x[3:6], y[3:6]), (x[6:], y[6:])]
    whole = s3d.SplittingOperator(model, graph, batches, case.loss_fn)
    room = kept * whole.parts[0].nbytes + 1
    some = s3d.SplittingOperator(model, graph, batches, case.loss_fn, memory=room)
    assert [isinstance(part, RecomputedBatchOperator) for part in some.parts] == [n >= kept for n in range(3)]
    vectors = random_vectors(whole)
    for name, product in whole.matvec(vectors).items():
        assert torch.equal(some.matvec(vectors)[name], product)
        assert torch.equal(some.dense(name), whole.dense(name))


def test_a_batch_on_another_device_is_refused():
    case = BY_NAME["mlp-relu"]
    x, y = case.batch()
    for batch in ((x.to("meta"), y), (x, y)):
        model = case.model()
        if batch[0].device == x.device:
            graph = s3d.trace(model, x)
            model.to("meta")
            match = "batch: expected tensors on meta, where the model is, got cpu"
        else:
            graph = s3d.trace(model, x)
            match = "batch: expected tensors on cpu, where the model is, got meta"
        with pytest.raises(s3d.ModelError, match=match):
            s3d.SplittingOperator(model, graph, [batch], case.loss_fn)


def test_vectors_of_another_shape_are_refused():
    op = measured(BY_NAME["mlp-relu"]).op
    with pytest.raises(s3d.ModelError, match=r"0: expected vectors of shape \(5, 5\), got \(5, 4\)"):
        op.matvec({"0": torch.zeros(5, 4, dtype=torch.float64)})


@pytest.mark.parametrize("name", ["4", "nothing"])
def test_groups_that_cannot_be_split_have_no_matrices(name):
    op = measured(BY_NAME["mlp-relu"]).op
    with pytest.raises(s3d.ModelError, match=f"{name}: expected a splittable group, one of 0, 2"):
        op.matvec({name: torch.zeros(3, 5, dtype=torch.float64)})
    with pytest.raises(s3d.ModelError, match=f"{name}: expected a splittable group, one of 0, 2"):
        op.dense(name)


@all_cases
def test_groups_that_have_to_do_with_each_other_form_a_cluster(case):
    """A product with some groups moves the others of its cluster only, and each group is in one cluster."""
    (part,) = measured(case).op.parts
    names = [group.name for cluster in part._clusters for group in cluster.groups]
    assert sorted(names) == sorted(part.shapes)
    inputs = [segment.inputs for cluster in part._clusters for segment in cluster.segments]
    assert sum(map(len, inputs)) == len(set().union(*inputs))


def test_passes_are_counted_by_group():
    case = BY_NAME["mlp-tanh"]
    run = measured(case)
    op = BatchOperator(run.model, run.graph, case.batch(), case.loss_fn)
    assert op.passes == 2
    vectors = random_vectors(op)
    op.matvec(vectors)
    assert op.passes == 4
    op.matvec({"0": vectors["0"]})
    assert op.passes == 5
    again = RecomputedBatchOperator(lambda: BatchOperator(run.model, run.graph, case.batch(), case.loss_fn), 6)
    again.matvec(vectors)
    again.matvec(vectors)
    assert again.passes == 8


def test_shapes_of_a_graph():
    assert shapes_of(measured(BY_NAME["mlp-tanh"]).graph) == {"0": (5, 5), "2": (4, 6)}
