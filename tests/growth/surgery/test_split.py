import copy
import doctest
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import ChannelGraph, Role
from tests import reference
from tests.cases import BY_NAME, Case, Mlp, all_cases, measured, random_plan, smooth_cases

# All-positive weights, negative ones of every number of copies, and the triplet of the paper.
SCHEMES = [(2, 1.0), (2, 6.0), (3, 1.0), (3, 1.3), (3, 4.0), (4, 1.3), (4, 4.0)]
every_number_of_copies = pytest.mark.parametrize("copies", [2, 3, 4])


def check_same_graph(found: ChannelGraph, expected: ChannelGraph) -> None:
    """Compare two graphs axis by axis and slot by slot."""
    assert str(found) == str(expected)
    assert found.shapes == expected.shapes
    for layer, other in zip(found.layers, expected.layers, strict=True):
        assert (layer.name, layer.kind, layer.parameters) == (other.name, other.kind, other.parameters)
        for axis, wanted in zip(layer.axes, other.axes, strict=True):
            assert (axis.tensor, axis.dim, axis.role) == (wanted.tensor, wanted.dim, wanted.role)
            assert axis.slots.tolist() == wanted.slots.tolist()
    for work, other in zip(found.operations, expected.operations, strict=True):
        assert (work.kind, work.repeats, work.weight) == (other.kind, other.repeats, other.weight)
        assert (None if work.slots is None else work.slots.tolist()) == (
            None if other.slots is None else other.slots.tolist()
        )


@torch.no_grad()
def loss(case: Case, model: nn.Module) -> float:
    x, y = case.batch()
    return float(case.loss_fn(model(x), y))


# -- exactness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moving", [False, True], ids=["without a spectrum", "with a spectrum"])
@every_number_of_copies
@all_cases
def test_epsilon_zero_changes_no_output(case, copies, moving):
    run, x = measured(case), case.inputs(8, seed=5)
    plan = random_plan(case, seed=copies, moving=moving, choices=(1, copies))
    grown = s3d.split(run.model, run.graph, plan, epsilon=0).model
    torch.testing.assert_close(grown(x), run.model(x), rtol=0, atol=1e-10)


@all_cases
def test_epsilon_zero_changes_no_output_for_mixed_copies(case):
    run, x = measured(case), case.inputs(8, seed=5)
    for seed, c in enumerate((1.0, 1.3, 9.0)):
        grown = s3d.split(run.model, run.graph, random_plan(case, seed, c=c), epsilon=0).model
        torch.testing.assert_close(grown(x), run.model(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["conv-bn-silu", "separable-relu6", "residual-relu"])
def test_epsilon_zero_changes_no_output_in_training_mode(name):
    case = BY_NAME[name]
    grown = s3d.split(measured(case).model, measured(case).graph, random_plan(case, 0), epsilon=0).model.train()
    parent = copy.deepcopy(measured(case).model).train()
    x = case.inputs(8, seed=5)
    torch.testing.assert_close(grown(x), parent(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(grown.eval()(x), parent.eval()(x), rtol=0, atol=1e-10)  # running statistics too


@pytest.mark.parametrize(("copies", "c"), SCHEMES)
@smooth_cases
def test_the_change_of_the_loss_is_the_predicted_one(case, copies, c):
    run, epsilon = measured(case), 1e-3
    plan = s3d.select(run.spectrum, run.graph, s3d.TopFraction(1.0), copies, c=c)
    negative = min(float(weights.min()) for weights in plan.weights.values()) < 0
    assert negative == (c > 1)
    grown = s3d.split(run.model, run.graph, plan, epsilon).model
    change = loss(case, grown) - loss(case, run.model)
    assert plan.gain < 0
    assert change == pytest.approx(epsilon**2 / 2 * plan.gain, rel=1e-2)


@pytest.mark.parametrize(("copies", "c", "triplet"), [(2, 1.0, "optimal"), (2, 6.0, "optimal"), (3, 1.3, "paper")])
@pytest.mark.parametrize("name", ["mlp-tanh", "residual-silu", "gated-tanh"])
def test_the_gain_of_every_single_neuron_is_the_predicted_one(name, copies, c, triplet):
    case, epsilon = BY_NAME[name], 1e-3
    run = measured(case)
    for group in run.graph.splittable_groups:
        for i in range(group.width):
            number = torch.ones(group.width, dtype=torch.int64)
            number[i] = copies
            plan = s3d.plan_from_copies(run.graph, {group.name: number}, run.spectrum, c=c, triplet=triplet)
            change = loss(case, s3d.split(run.model, run.graph, plan, epsilon).model) - loss(case, run.model)
            assert change == pytest.approx(epsilon**2 / 2 * plan.gain, rel=2e-2, abs=1e-13)


@pytest.mark.parametrize(("c", "order"), [(1.0, 4), (6.0, 3)], ids=["positive", "negative"])
def test_the_order_of_the_error(c, order):
    """Positive splittings are symmetric, so that their error has no odd order."""
    case = BY_NAME["conv-bn-silu"]
    run = measured(case)
    plan = s3d.select(run.spectrum, run.graph, s3d.TopFraction(1.0), 2, c=c)
    errors = []
    for epsilon in (0.02, 0.01):
        change = loss(case, s3d.split(run.model, run.graph, plan, epsilon).model) - loss(case, run.model)
        errors.append(abs(change - epsilon**2 / 2 * plan.gain))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.05)


def test_splitting_by_hand():
    """The rule in full, for two layers that grow together: rows move, columns are multiplied, in that order."""
    case, epsilon = BY_NAME["mlp-tanh"], 0.1
    run = measured(case)
    first, second, head = run.model[0], run.model[2], run.model[4]
    number = {"0": torch.tensor([1, 2, 1, 3, 1]), "2": torch.tensor([4, 1, 1, 2])}
    plan = s3d.plan_from_copies(run.graph, number, run.spectrum, c=2.0)
    grown = s3d.split(run.model, run.graph, plan, epsilon).model

    a, b = (torch.arange(len(n)).repeat_interleave(n) for n in number.values())
    w, delta = plan.weights, plan.displacements
    theta = torch.cat([first.weight, first.bias[:, None]], 1)[a] + epsilon * delta["0"]
    torch.testing.assert_close(torch.cat([grown[0].weight, grown[0].bias[:, None]], 1), theta)
    theta = torch.cat([second.weight, second.bias[:, None]], 1)[b] + epsilon * delta["2"]
    torch.testing.assert_close(grown[2].weight, theta[:, :-1][:, a] * w["0"])
    torch.testing.assert_close(grown[2].bias, theta[:, -1])
    torch.testing.assert_close(grown[4].weight, head.weight[:, b] * w["2"])
    assert torch.equal(grown[4].bias, head.bias)


@all_cases
def test_copies_are_centred_on_their_neuron(case):
    """sum_j w_j theta_j = theta for every producer that reads nothing that grows."""
    run = measured(case)
    plan = random_plan(case, seed=4)
    result = s3d.split(run.model, run.graph, plan, epsilon=0.3)
    before, after = dict(run.model.named_parameters()), dict(result.model.named_parameters())
    layer = next(layer for layer in run.graph.layers if any(axis.role is Role.ROW for axis in layer.axes))
    group = run.graph.groups[0]
    for name in layer.parameters:
        weighted = after[name] * plan.weights[group.name].reshape(-1, *(1,) * (after[name].dim() - 1))
        sums = torch.zeros_like(before[name]).index_add_(0, result.index_map[group.name], weighted)
        torch.testing.assert_close(sums, before[name], rtol=0, atol=1e-12)
        assert not torch.allclose(after[name], before[name][result.index_map[group.name]])


@all_cases
def test_the_index_map_names_the_parent_of_every_neuron(case):
    run = measured(case)
    plan = random_plan(case, seed=6)
    result = s3d.split(run.model, run.graph, plan, epsilon=0)
    for name, source in result.index_map.items():
        assert source.numel() == result.widths[name] == plan.widths[name]
        assert torch.equal(torch.bincount(source), plan.copies[name])
        bias = f"{run.graph[name].producers[0].name}.bias"
        before, after = (dict(m.named_parameters()) for m in (run.model, result.model))
        if bias in before:
            assert torch.equal(after[bias], before[bias][source])


def test_followers_are_copied():
    case = BY_NAME["separable-silu"]
    run = measured(case)
    result = s3d.split(run.model, run.graph, random_plan(case, seed=6), epsilon=0.1)
    source = result.index_map["6"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(result.model[7], name), getattr(run.model[7], name)[source])
    pairs = torch.stack([2 * source, 2 * source + 1], 1).flatten()  # two filters of each channel
    assert torch.equal(result.model[9].weight, run.model[9].weight[pairs])
    assert torch.equal(result.model[10].running_var, run.model[10].running_var[pairs])


# -- modules and the model ---------------------------------------------------------------------------------------


@all_cases
def test_the_input_model_is_untouched(case):
    model = case.model().train()
    with reference.untouched(model):
        graph = s3d.trace(model, case.inputs())
        result = s3d.split(model, graph, random_plan(case, seed=2), epsilon=0.1)
        for parameter in result.model.parameters():
            parameter.data.fill_(7)
        for buffer in result.model.buffers():
            buffer.fill_(7)


@all_cases
def test_the_graph_of_the_grown_model_is_what_a_trace_of_it_gives(case):
    run = measured(case)
    result = s3d.split(run.model, run.graph, random_plan(case, seed=3), epsilon=0.1)
    check_same_graph(result.graph, s3d.trace(result.model, case.inputs()))
    assert result.widths == result.graph.widths


def test_the_state_dict_loads_into_a_network_of_the_new_widths():
    case = BY_NAME["mlp-tanh"]
    run, x = measured(case), case.inputs()
    result = s3d.split(run.model, run.graph, random_plan(case, seed=3), epsilon=0.1)
    fresh = Mlp(nn.Tanh, (result.widths["0"], result.widths["2"])).double()
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(fresh(x), result.model(x))
    check_same_graph(s3d.trace(fresh, x), result.graph)


def test_requires_grad_dtype_and_modes_are_kept():
    case = BY_NAME["conv-bn-relu"]
    model = case.model().float()
    model[0].weight.requires_grad_(False)
    model[4].train()
    result = s3d.split(model, measured(case).graph, random_plan(case, seed=1), epsilon=0.1)
    for (name, parameter), old in zip(result.model.named_parameters(), model.parameters(), strict=True):
        assert isinstance(parameter, nn.Parameter)
        assert parameter.requires_grad == (name != "0.weight")
        assert parameter.dtype == old.dtype == torch.float32
        assert parameter.is_leaf
    assert [m.training for m in result.model.modules()] == [m.training for m in model.modules()]


def test_parameters_that_are_tied_stay_tied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 4))
    model.double()[4].weight = model[2].weight
    x = torch.randn(5, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(4, 6).double(), nn.Tanh(), nn.Linear(6, 4).double(), model)
    graph = s3d.trace(model, x)
    assert graph.widths == {"0": 6, "2": 4}
    result = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.full((6,), 2)}), epsilon=0)
    assert result.model[3][4].weight is result.model[3][2].weight
    assert result.model[3][4].weight is not model[3][4].weight
    assert sum(p.numel() for p in result.model.parameters()) == s3d.count(result.graph).params
    torch.testing.assert_close(result.model(x), model(x))


def test_a_plan_that_splits_nothing_gives_an_equal_network():
    case = BY_NAME["residual-relu"]
    run = measured(case)
    result = s3d.split(run.model, run.graph, s3d.plan_from_copies(run.graph, {}, run.spectrum), epsilon=0.5)
    assert result.widths == run.graph.widths
    for (name, tensor), other in zip(result.model.state_dict().items(), run.model.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


@all_cases
def test_the_same_plan_gives_the_same_bits(case):
    run = measured(case)
    first, second = (
        s3d.split(run.model, run.graph, random_plan(case, 8), epsilon=0.1).model.state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["mlp-one-neuron", "separable-relu6", "pool-flatten-leaky", "residual-silu", "prelu"])
def test_five_steps_of_growth(name):
    case = BY_NAME[name]
    model, graph, x = case.model(), measured(case).graph, case.inputs(4, seed=9)
    expected = model(x)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        copies = {}
        for group in graph.splittable_groups:
            copies[group.name] = torch.ones(group.width, dtype=torch.int64)
            copies[group.name][torch.randint(group.width, (1,), generator=generator)] = 2 + step % 3
        plan = s3d.plan_from_copies(graph, copies, c=1.0 + step)
        result = s3d.split(model, graph, plan, epsilon=0)
        torch.testing.assert_close(result.model(x), expected, rtol=0, atol=1e-10)
        check_same_graph(result.graph, s3d.trace(result.model, x))
        cost = s3d.count(result.graph)
        assert (cost.params, cost.macs) == (plan.params, plan.macs)
        assert cost.params == reference.params(result.model)
        assert all(result.widths[n] == graph[n].width + 1 + step % 3 for n in result.widths)
        model, graph = result.model, result.graph


@smooth_cases
def test_a_grown_network_can_be_measured_and_grown_again(case):
    run, epsilon = measured(case), 1e-3
    result = s3d.split(run.model, run.graph, random_plan(case, seed=1), epsilon=0.1)
    op = s3d.SplittingOperator(result.model, result.graph, [case.batch()], case.loss_fn)
    plan = s3d.select(s3d.spectrum(op, "exact"), result.graph, s3d.TopFraction(1.0), 2, c=1.3)
    again = s3d.split(result.model, result.graph, plan, epsilon).model
    change = loss(case, again) - loss(case, result.model)
    assert change == pytest.approx(epsilon**2 / 2 * plan.gain, rel=1e-2)


def test_a_plan_for_another_network_is_refused():
    case, other = BY_NAME["mlp-tanh"], BY_NAME["functional-smooth"]
    with pytest.raises(s3d.ModelError, match=r"plan: expected one for the widths {'0': 5, '2': 4}, got one for {'lay"):
        s3d.split(measured(case).model, measured(case).graph, random_plan(other, 0))


def test_the_oracle_doubles_networks_exactly():
    """The twofold network of the reference, another program for the same surgery, agrees with it."""
    for name in ("separable-silu", "residual-silu", "pool-flatten-gelu", "gated-tanh"):
        case = BY_NAME[name]
        run = measured(case)
        for group in run.graph.splittable_groups:
            delta = torch.randn(
                run.op.shapes[group.name], dtype=torch.float64, generator=torch.Generator().manual_seed(1)
            )
            delta /= delta.norm(dim=1, keepdim=True)
            twofold = reference.twofold_loss(run.model, group, case.batch(), case.loss_fn, 0.3 * delta)
            plan = s3d.plan_from_copies(run.graph, {group.name: torch.full((group.width,), 2)}, c=1)
            signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(group.width)
            moves = {**plan.displacements, group.name: delta.repeat_interleave(2, 0) * signs[:, None]}
            plan = replace(plan, displacements=moves)
            grown = s3d.split(run.model, run.graph, plan, 0.3).model
            assert loss(case, grown) == pytest.approx(twofold.item(), rel=1e-12)
            assert abs(loss(case, grown) - loss(case, run.model)) > 1e-6


@pytest.mark.parametrize("function", [s3d.split, s3d.split_average], ids=lambda function: function.__name__)
def test_the_examples_of_the_docstrings(function):
    finder = doctest.DocTestFinder()
    (examples,) = finder.find(function, globs={"torch": torch, "nn": nn, "AveragedModel": AveragedModel})
    assert len(examples.examples) >= 4
    assert not doctest.DocTestRunner().run(examples).failed
