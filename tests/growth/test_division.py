import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.layout import lengths
from tests import reference
from tests.cases import BY_NAME, Case, all_cases, measured


def gradients(case: Case, *batches: tuple, memory: float | None = None) -> s3d.ReaderGradients:
    run = measured(case)
    return s3d.ReaderGradients(run.model, run.graph, batches or [case.batch()], case.loss_fn, memory)


def random_signs(op: s3d.ReaderGradients, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: 2.0 * torch.randint(2, s, generator=generator).to(op.dtype) - 1 for n, s in op.readers.items()}


def twice(graph: s3d.ChannelGraph) -> dict[str, torch.Tensor]:
    return {group.name: torch.full((group.width,), 2) for group in graph.splittable}


def loss(case: Case, model: nn.Module) -> float:
    x, y = case.batch()
    with torch.no_grad():
        return float(case.loss_fn(model(x), y))


@all_cases
def test_the_parts_are_derivatives_of_the_divided_network(case):
    run, op = measured(case), gradients(case)
    signs = random_signs(op)
    found = op.combined(signs)
    for group in run.graph.splittable:
        expected = reference.divided_slopes(run.model, group, case.batch(), case.loss_fn, signs)
        assert expected.abs().max() > 1e-5
        torch.testing.assert_close(found[group.name], expected, rtol=1e-9, atol=1e-14)


@all_cases
def test_the_parts_add_up_to_the_gradient(case):
    op, model = gradients(case), case.model()
    x, y = case.batch()
    case.loss_fn(model(x), y).backward()
    found = op.combined({name: torch.ones(shape, dtype=op.dtype) for name, shape in op.readers.items()})
    slopes = case.model()  # with the gradients in the places of the parameters
    for parameter, other in zip(slopes.parameters(), model.parameters(), strict=True):
        parameter.data = other.grad
    for group in measured(case).graph.splittable:
        torch.testing.assert_close(found[group.name], reference.theta(slopes, group), rtol=1e-9, atol=1e-14)


@all_cases
def test_both_products_are_those_of_one_matrix(case):
    op = gradients(case)
    signs, generator = random_signs(op), torch.Generator().manual_seed(1)
    u = {name: torch.randn(shape, dtype=op.dtype, generator=generator) for name, shape in op.shapes.items()}
    forward = op.by_neuron({name: part * signs[name] for name, part in op.along(u).items()})
    for name, back in op.combined(signs).items():
        torch.testing.assert_close(forward[name], (back * u[name]).sum(1), rtol=1e-9, atol=1e-14)


@all_cases
@pytest.mark.parametrize("c", [1.0, 3.0])
def test_a_division_leaves_the_function_as_it_is(case, c):
    run, op = measured(case), gradients(case)
    division = replace(s3d.divide(op), signs=random_signs(op, seed=2))
    generator = torch.Generator().manual_seed(3)
    copies = {g.name: torch.randint(1, 3, (g.width,), generator=generator) for g in run.graph.splittable}
    copies[run.graph.splittable[0].name][0] = 2
    plan = s3d.plan_from_copies(run.graph, copies, division, c)
    grown = s3d.split(run.model, run.graph, plan, epsilon=0.0)
    assert plan.neurons
    assert any((s != 0).any() for s in plan.divisions.values())
    torch.testing.assert_close(grown.model(case.inputs()), run.model(case.inputs()), rtol=1e-12, atol=1e-14)


@all_cases
@pytest.mark.parametrize("c", [1.0, 2.0])
def test_the_loss_falls_as_predicted(case, c):
    run = measured(case)
    plan = s3d.plan_from_copies(run.graph, twice(run.graph), s3d.divide(gradients(case)), c)
    epsilon = 1e-6
    change = loss(case, s3d.split(run.model, run.graph, plan, epsilon).model) - loss(case, run.model)
    assert plan.order == 1
    assert plan.gain < -1e-4
    assert change / epsilon == pytest.approx(plan.gain, rel=1e-3)


@all_cases
def test_gains_in_units_of_theta(case):
    run = measured(case)
    units = lengths(run.graph.splittable, dict(run.model.named_parameters()))
    policy = s3d.TopFraction(1.0)
    plan = s3d.select(s3d.divide(gradients(case)), run.graph, policy, c=1.0, lengths=units)
    change = loss(case, s3d.split(run.model, run.graph, plan, 1e-6, relative=True).model) - loss(case, run.model)
    assert change / 1e-6 == pytest.approx(plan.gain, rel=1e-3)


@all_cases
def test_neither_direction_nor_division_can_be_improved_alone(case):
    op = gradients(case)
    division = s3d.divide(op, rounds=60)
    gradient = op.combined({name: torch.ones_like(s) for name, s in division.signs.items()})
    parts, combined = op.along(division.directions), op.combined(division.signs)
    for name, slope in parts.items():
        assert (slope * division.signs[name] >= 0).all()
    for name, u in division.directions.items():
        assert (u * gradient[name]).sum(1).abs().max() < 1e-12
        torch.testing.assert_close((combined[name] * u).sum(1), division.slopes[name], rtol=1e-9, atol=1e-14)
        g = torch.nn.functional.normalize(gradient[name], dim=1)
        rest = combined[name] - (combined[name] * g).sum(1, keepdim=True) * g
        torch.testing.assert_close(rest.norm(dim=1), division.slopes[name], rtol=1e-6, atol=1e-9)


def test_close_to_the_best_of_all_divisions():
    case = BY_NAME["mlp-tanh"]
    run, op = measured(case), gradients(case)
    ones = {name: torch.ones(shape, dtype=op.dtype) for name, shape in op.readers.items()}
    g = torch.nn.functional.normalize(op.combined(ones)["2"], dim=1)
    best = torch.zeros(run.graph["2"].width, dtype=op.dtype)
    for signs in itertools.product((-1.0, 1.0), repeat=3):  # three classes read every neuron of the second layer
        every = ones | {"4.weight": torch.tensor(signs, dtype=op.dtype)[:, None].expand(3, 4)}
        slope = op.combined(every)["2"]
        best = torch.maximum(best, (slope - (slope * g).sum(1, keepdim=True) * g).norm(dim=1))
    found = torch.stack([s3d.divide(op, seed=seed).slopes["2"] for seed in range(4)])
    assert (found <= best + 1e-12).all()
    torch.testing.assert_close(found.amax(0), best)
    assert (found / best).mean() > 0.9
    assert (found > 0).all()


def test_rounds_help():
    case = BY_NAME["residual-relu"]
    one, four = (s3d.divide(gradients(case), rounds).slopes for rounds in (1, 4))
    assert sum(float(s.sum()) for s in four.values()) > 1.01 * sum(float(s.sum()) for s in one.values())


def test_slopes_on_other_samples():
    case = BY_NAME["conv-bn-relu"]
    batches = [case.batch(6, 1), case.batch(4, 2), case.batch(5, 3), case.batch(3, 4)]
    division = s3d.divide(gradients(case, *batches))
    same = s3d.divide(gradients(case, *batches[:2]))
    expected = dict.fromkeys(division.slopes, 0.0)
    for (x, y), share in zip(batches[2:], (5 / 8, 3 / 8), strict=True):
        op = gradients(case, (x, y))
        parts = {name: part * division.signs[name] for name, part in op.along(division.directions).items()}
        for name, slopes in op.by_neuron(parts).items():
            expected[name] = expected[name] + share * slopes
    for name, u in division.directions.items():
        torch.testing.assert_close(u, unit_of(same, batches, case, name))
        torch.testing.assert_close(division.expected(name), expected[name])


def unit_of(division: s3d.Division, batches: list, case: Case, name: str) -> torch.Tensor:
    """Return the direction from the first two batches; with two alone, the second would be held out."""
    x, y = (torch.cat(parts) for parts in zip(*batches[:2], strict=True))
    return s3d.divide(gradients(case, (x, y))).directions[name]


def test_memory_changes_nothing_but_the_work():
    case = BY_NAME["separable-relu6"]
    batches = [case.batch(4, seed) for seed in range(4)]
    ops = [gradients(case, *batches, memory=memory) for memory in (None, 0)]
    first, second = map(s3d.divide, ops)
    for name, u in first.directions.items():
        assert torch.equal(u, second.directions[name])
    assert ops[1].passes > ops[0].passes > 8


def test_one_batch_is_all_there_is():
    case = BY_NAME["mlp-relu"]
    division = s3d.divide(gradients(case))
    assert not len(division.shares)
    assert torch.equal(division.expected("0"), division.slopes["0"])


def test_a_dead_neuron_is_not_split():
    case = BY_NAME["mlp-relu"]
    model = case.model()
    with torch.no_grad():
        model[0].bias[2] = -100
    graph = s3d.trace(model, case.inputs())
    op = s3d.ReaderGradients(model, graph, [case.batch(6, 1), case.batch(6, 2)], case.loss_fn)
    division = s3d.divide(op)
    assert division.slopes["0"][2] == 0
    assert (division.directions["0"][2] == 0).all()
    assert s3d.select(division, graph, s3d.TopFraction(1.0)).copies["0"][2] == 1


def test_choice_by_what_other_samples_say():
    case = BY_NAME["conv-bn-silu"]
    run = measured(case)
    division = s3d.divide(gradients(case, case.batch(6, 1), case.batch(6, 2)))
    plan = s3d.select(division, run.graph, s3d.TopFraction(1.0), c=1.0)
    for name, copies in plan.copies.items():
        assert torch.equal(copies == 2, division.expected(name) > 0)
    assert 0 < plan.neurons < sum(run.graph.widths.values())
    assert plan.gain < plan.held_out_gain < 0
    assert plan.held_out_error is None  # one part


def test_a_plan_survives_the_disk():
    case = BY_NAME["residual-silu"]
    run = measured(case)
    division = s3d.divide(gradients(case, *(case.batch(5, seed) for seed in range(4))))
    plan = s3d.select(division, run.graph, s3d.TopFraction(0.5))
    again = s3d.GrowthPlan.load(plan.to_json(), plan.to_tensors())
    assert again.held_out_error > 0
    first, second = (s3d.split(run.model, run.graph, p, 0.1).model(case.inputs()) for p in (plan, again))
    assert torch.equal(first, second)


def test_errors():
    case = BY_NAME["conv-bn-silu"]
    run, op = measured(case), gradients(case)
    with pytest.raises(s3d.ConfigError, match="rounds: expected a whole number >= 1, got 0"):
        s3d.divide(op, rounds=0)
    division = s3d.divide(op)
    with pytest.raises(s3d.ConfigError, match="copies: expected 2, which divide what reads a neuron"):
        s3d.select(division, run.graph, s3d.TopK(1), copies=3)
    with pytest.raises(s3d.ConfigError, match="0: expected at most 2 copies"):
        s3d.plan_from_copies(run.graph, {"0": torch.tensor([1, 3, 1, 1])}, division)
    missing = replace(division, directions={"0": division.directions["0"]})
    with pytest.raises(s3d.ModelError, match=r"3: expected directions of shape \(3, 36\), got none"):
        s3d.select(missing, run.graph, s3d.TopK(1))
    other = measured(BY_NAME["separable-silu"])
    with pytest.raises(s3d.ModelError, match=r"0: expected directions of shape \(3, 18\), got \(4, 18\)"):
        s3d.plan_from_copies(other.graph, {}, division)
    infinite = replace(division, slopes={name: slope / 0 for name, slope in division.slopes.items()})
    with pytest.raises(s3d.ModelError, match="0: expected finite slopes, got others; has training diverged"):
        s3d.select(infinite, run.graph, s3d.TopK(1))
    with pytest.raises(s3d.ModelError, match="batches: expected at least one batch"):
        s3d.ReaderGradients(run.model, run.graph, [], case.loss_fn)
    with pytest.raises(s3d.ModelError, match="expected evaluation mode"):
        s3d.ReaderGradients(case.model().train(), run.graph, [case.batch()], case.loss_fn)
    model = case.model()
    model[0].weight.data[0] = torch.nan
    broken = s3d.ReaderGradients(model, run.graph, [case.batch()], case.loss_fn)
    with pytest.raises(s3d.ModelError, match="has training diverged"):
        s3d.divide(broken)
