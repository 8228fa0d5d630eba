"""Metrics: what carries the shares of copies where sums over channels only rank."""

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Role
from tests.wide import (
    Fixed,
    Net,
    Number,
    by_differences,
    by_products,
    check_refused,
    check_split,
    edges,
    expect_reason,
    linears,
    sample,
)

SHAPE = (2, 2, 6)
RANKS = "only to rank what comes out, as nearest neighbours are found"


def layers(**others: nn.Module) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": nn.Conv1d(2, 3, 1), "b": nn.Conv2d(6, 4, 1), **others}


def on_neighbours(distance):
    """Return a network that reads what points have in common with those that are near; (m, x) -> distances."""

    def forward(m, x):
        x = torch.tanh(m.a(x))
        return m.b(edges(x, distance(m, x))).amax(-1)

    return forward


def by_vector(x, metric):
    return torch.einsum("bcnm,c->bnm", (x[..., None] - x[:, :, None]).square(), metric)


def by_sum_of_squares(x, metric):
    weighted = x * metric[:, None]
    squares = (weighted * x).sum(1)
    return squares[:, :, None] - 2 * torch.einsum("bcn,bcm->bnm", x, weighted) + squares[:, None]


def by_scaled_twice(x, metric):
    return -((metric[:, None, None] * (0.5 * x)[..., None].contiguous()) * x[:, :, None]).sum(1)


WAYS = (by_products, by_differences, by_vector, by_sum_of_squares, by_scaled_twice)


@pytest.mark.parametrize("own", [Fixed, Number])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_metric_is_shared_out(way, own):
    model = Net(on_neighbours(lambda m, x: way(x, m.metric)), **layers(metric=own(3))).double().eval()
    graph = s3d.trace(model, sample(*SHAPE))
    assert graph.widths == {"a": 3}
    (axis,) = [axis for axis in graph.axes() if axis.tensor == "metric"]
    assert axis.is_metric
    check_split(model, sample(*SHAPE), graph)
    copies, weights = torch.tensor([1, 3, 2]), scheme_weights(graph)
    plan = s3d.plan_from_copies(graph, {"a": copies}, c=2.5)
    assert plan.weights["a"].min() < 0
    grown = s3d.split(model, graph, plan, epsilon=0).model
    torch.testing.assert_close(grown.metric, model.metric.repeat_interleave(copies) * weights)


def scheme_weights(graph) -> torch.Tensor:
    """Return the shares of one, three and two copies."""
    weights = s3d.plan_from_copies(graph, {"a": torch.tensor([1, 3, 2])}, c=2.5).weights["a"].abs()
    return torch.cat([part / part.sum() for part in weights.split([1, 3, 2])])


def test_new_neurons_leave_the_metric_with_the_old_ones():
    model = Net(on_neighbours(lambda m, x: by_products(x, m.metric)), **layers(metric=Fixed(3))).double().eval()
    graph = s3d.trace(model, sample(*SHAPE))
    plan = s3d.select(s3d.new_neurons(model, graph), graph, s3d.TopK(2))
    grown = s3d.split(model, graph, plan).model
    torch.testing.assert_close(grown(sample(*SHAPE)), model(sample(*SHAPE)), rtol=0, atol=1e-12)
    assert sorted(grown.metric[grown.metric > 0].tolist()) == sorted(model.metric.tolist())


def test_distances_that_the_loss_depends_on_have_no_metric():
    """A negative weight stays one: the derivative of a share would be another."""

    def forward(m, x):
        x = torch.tanh(m.a(x))
        return m.b(edges(x, by_vector(x, m.metric))).amax(-1), by_vector(x, m.metric).sum(-1)

    graph = s3d.trace(Net(forward, **layers(metric=Fixed(3))).double(), sample(*SHAPE))
    (axis,) = [axis for axis in graph.axes() if axis.tensor == "metric"]
    assert graph["a"].splittable
    assert (axis.role, axis.is_metric) == (Role.COLUMN, False)

    def by_sum(m, x):
        x = torch.tanh(m.a(x))
        return m.b(edges(x, distance := by_differences(x, m.metric))).amax(-1), distance

    check_refused(by_sum, layers(metric=Fixed(3)), SHAPE, "sum reduces over its channels")

    def by_matmul(m, x):
        x = torch.tanh(m.a(x))
        return m.b(edges(x, distance := by_products(x, m.metric))).amax(-1), distance.exp()

    check_refused(by_matmul, layers(metric=Fixed(3)), SHAPE, "matmul multiplies its channels with .*, because of tanh")


def test_plain_neighbours_are_refused_with_what_to_write_instead():
    squared = on_neighbours(lambda m, x: (x[..., None] - x[:, :, None]).square().sum(1))
    check_refused(squared, layers(), SHAPE, f"sum sums over its channels {RANKS}")
    check_refused(on_neighbours(lambda m, x: -(x.mT @ x)), layers(), SHAPE, f"matmul sums over its channels {RANKS}")


BARRED = {
    "its root": lambda m, x: (x * m.metric.sqrt()[:, None]).mT @ x,
    "both factors": lambda m, x: (y := x * m.metric[:, None]).mT @ y.contiguous(),
    "its square": lambda m, x: ((y := x * m.metric[:, None]) * y).sum(1)[:, None] * x.mean(1)[..., None],
    "an activation": lambda m, x: torch.relu(x * m.metric[:, None]).mT @ x,
    "another use of what it scales": lambda m, x: ((y := x * m.metric[:, None]).mT @ x) * y.mean(1)[:, None],
    "another use of itself": lambda m, x: by_products(x, m.metric) * (x / m.metric[:, None]).mean(1)[:, None],
    "a sum of itself": lambda m, x: by_products(x, m.metric) / m.metric.sum(),
}


@pytest.mark.parametrize("name", BARRED)
def test_a_metric_may_be_used_for_nothing_else(name):
    modules = layers(metric=Fixed(3))
    graph = s3d.trace(Net(on_neighbours(BARRED[name]), **modules).double(), sample(*SHAPE))
    assert not graph["a"].splittable
    assert RANKS in graph["a"].reason or "the parameter metric also enters" in graph["a"].reason


def test_a_metric_for_several_groups_and_for_several_distances():
    def forward(m, x):
        x = torch.cat((torch.tanh(m.a(x)), torch.tanh(m.c(x))), 1)
        near = by_products(x, m.metric) + by_sum_of_squares(x, m.metric)
        return m.b(edges(x, near)).amax(-1)

    torch.manual_seed(0)
    modules = {"a": nn.Conv1d(2, 3, 1), "c": nn.Conv1d(2, 2, 1), "b": nn.Conv2d(10, 4, 1)}
    model = Net(forward, **modules, metric=Fixed(5)).double()
    graph = s3d.trace(model, sample(*SHAPE))
    assert graph.widths == {"a": 3, "c": 2}
    check_split(model, sample(*SHAPE), graph)


def test_distances_without_gradients():
    """As they are often written; splitting matrices take the graph as fixed."""

    def distance(m, x):
        with torch.no_grad():
            return by_products(x, m.metric)

    model = Net(on_neighbours(distance), **layers(metric=Fixed(3))).double().eval()
    x, y = sample(*SHAPE), torch.randn(2, 4, 6, dtype=torch.float64)
    graph = s3d.trace(model, x)
    with_gradients = Net(on_neighbours(lambda m, x: by_products(x, m.metric)), **dict(model.named_children()))
    with_gradients.metric = model.metric
    dense = [
        s3d.SplittingOperator(one, graph, [(x, y)], nn.MSELoss()).dense("a") for one in (model, with_gradients.double())
    ]
    assert dense[0].abs().max() > 1e-4
    torch.testing.assert_close(*dense, rtol=0, atol=1e-15)


def test_merged_copies_give_their_shares_back():
    model = Net(on_neighbours(lambda m, x: by_products(x, m.metric)), **layers(metric=Fixed(3))).double().eval()
    graph = s3d.trace(model, sample(*SHAPE))
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, {"a": torch.tensor([2, 1, 3])}, c=2.5), epsilon=0)
    merged = s3d.merge(grown.model, grown.graph)
    assert merged.widths == {"a": 3}
    torch.testing.assert_close(merged.model.metric, model.metric)


def test_scores_that_are_only_ranked_are_carried_by_a_layer_where_one_can():
    """As queries and keys that choose positions."""

    def forward(m, x):
        chosen = (m.a(x) @ m.c(x).mT).argmax(-1)
        return m.b(x[torch.arange(len(x))[:, None], chosen])

    graph = s3d.trace(Net(forward, **linears((4, 3), (4, 2), (4, 3))).double(), sample(5, 3, 4))
    assert graph["a"].splittable
    expect_reason(graph["b"], "it is an output of the network")
