"""New neurons: the function stays, their siblings stay, what they read is random, and they can learn at once."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

import nni_s3d as s3d
from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.graph.channels import Role
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.graph.theta import pack, theta_norms
from tests.cases import BY_NAME, Case, all_cases, measured
from tests.wide import WIDE, random_case

RANDOM = tuple(random_case(seed) for seed in range(40))
wide_and_random = pytest.mark.parametrize("case", [*WIDE, *RANDOM], ids=lambda case: case.name)


def one_beside_each(graph: s3d.ChannelGraph) -> dict[str, torch.Tensor]:
    """Return two copies of every neuron that is not averaged with others, if the parts allow it."""
    free = {g.name: torch.where(graph.averaged[g.channels], 1, 2) for g in graph.splittable_groups}
    raised = with_equal_parts(graph, free)
    return raised if all(map(torch.equal, raised.values(), free.values())) else {}


def grown(case: Case, seed: int = 0, **settings) -> s3d.SplitResult:
    """Return a network with a new neuron beside each."""
    run = measured(case)
    plan = s3d.plan_from_copies(run.graph, one_beside_each(run.graph), s3d.new_neurons(run.model, run.graph, seed))
    return s3d.split(run.model, run.graph, plan, **settings)


def thetas(result: s3d.SplitResult) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return {group: (old, new)}, each (width, new d)."""
    parameters = {name: parameter.detach() for name, parameter in result.model.named_parameters()}
    packed = {group.name: pack(group, parameters) for group in result.graph.splittable_groups}
    return {name: (theta[0::2], theta[1::2]) for name, theta in packed.items()}


def check_unchanged(case: Case, result: s3d.SplitResult) -> None:
    inputs = case.inputs(8, seed=5)
    torch.testing.assert_close(result.model(inputs), measured(case).model(inputs), rtol=0, atol=1e-10)


@all_cases
def test_the_function_stays(case):
    check_unchanged(case, grown(case))


@wide_and_random
def test_the_function_stays_on_every_structure(case):
    check_unchanged(case, grown(case))


@all_cases
def test_the_function_stays_in_training_mode(case):
    if any(isinstance(module, nn.modules.dropout._DropoutNd) for module in case.model().modules()):
        pytest.skip("dropout draws other numbers for other widths")
    inputs = case.inputs(8, seed=5)
    after, before = grown(case).model.train()(inputs), case.model().train()(inputs)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@all_cases
def test_new_neurons_read_at_random_and_as_much_as_the_others(case):
    for old, new in thetas(grown(case)).values():
        expected = old.norm(dim=1).mean().expand(len(new))
        torch.testing.assert_close(new.norm(dim=1), expected)
        cosines = F.cosine_similarity(old, new)
        assert cosines.abs().max() < 1 - 1e-6
        assert (new != 0).all()  # of other new neurons, too


def test_what_new_neurons_read_is_uniform_on_the_sphere():
    n, d = 5000, 4
    model = nn.Sequential(nn.Linear(d - 1, n), nn.Tanh(), nn.Linear(n, 1)).double()
    graph = s3d.trace(model, torch.zeros(1, d - 1, dtype=torch.float64))
    plan = s3d.plan_from_copies(graph, one_beside_each(graph), s3d.new_neurons(model, graph))
    ((old, new),) = thetas(s3d.split(model, graph, plan)).values()
    u, error = F.normalize(new, dim=1), 5 / n**0.5
    assert u.mean(dim=0).abs().max() < error
    assert (u.mT @ u / n - torch.eye(d) / d).abs().max() < error
    assert F.cosine_similarity(old, new).mean().abs() < error


@all_cases
def test_what_reads_new_neurons_has_a_gradient(case):
    result = grown(case)
    inputs, targets = case.batch()
    case.loss_fn(result.model(inputs), targets).backward()
    parameters = dict(result.model.named_parameters())
    new = torch.zeros(result.graph.num_channels + 1, dtype=torch.bool)  # the last for slots of no channel
    for group in result.graph.splittable_groups:
        new[group.channels] = torch.arange(group.width) % 2 == 1
    for group in result.graph.splittable_groups:
        gradient = torch.zeros(group.width, dtype=torch.float64)
        for layer in group.consumers:
            rows = {a.tensor: a for a in layer.axes if a.role is Role.ROW}
            for axis in (a for a in layer.axes if a.role is Role.COLUMN and a.blocks == 1):
                columns = ((axis.slots >= group.first) & (axis.slots < group.first + group.width)).nonzero()[:, 0]
                row = rows[axis.tensor]
                weight, slopes = (
                    x.movedim((axis.dim, row.dim), (0, 1))[columns]
                    for x in (parameters[axis.tensor].detach(), parameters[axis.tensor].grad)
                )
                gradient.index_add_(0, axis.slots[columns] - group.first, slopes.flatten(1).abs().sum(1))
                fresh = weight[new[axis.slots[columns]]]
                assert not fresh[:, ~new[row.slots]].any()  # no old neuron reads a new one yet
        assert (gradient[1::2] > 0).any()


def test_epsilon_and_units_do_not_matter():
    first = grown(BY_NAME["residual-silu"]).model.state_dict()
    run = measured(BY_NAME["residual-silu"])
    units = theta_norms(run.graph.splittable_groups, dict(run.model.named_parameters()))
    plan = s3d.plan_from_copies(
        run.graph, one_beside_each(run.graph), s3d.new_neurons(run.model, run.graph), theta_norms=units
    )
    second = s3d.split(run.model, run.graph, plan, epsilon=7.0).model.state_dict()
    assert plan.relative
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_seed_decides():
    first, second, other = (grown(BY_NAME["mlp-tanh"], seed) for seed in (3, 3, 4))
    for name, (old, new) in thetas(first).items():
        assert torch.equal(new, thetas(second)[name][1])
        assert torch.equal(old, thetas(other)[name][0])
        assert not torch.isclose(new, thetas(other)[name][1]).any(dim=1).all()


def test_priorities_are_random_in_units_of_theta():
    run = measured(BY_NAME["mlp-tanh"])
    first, other = (s3d.new_neurons(run.model, run.graph, seed).priorities for seed in (0, 1))
    parameters = dict(run.model.named_parameters())
    for group in run.graph.splittable_groups:
        shares = first[group.name] / pack(group, parameters).detach().norm(dim=1) ** 2
        assert ((shares > 0) & (shares < 1)).all()
        assert shares.unique().numel() == group.width
        assert not torch.equal(first[group.name], other[group.name])


@pytest.mark.parametrize(
    "policy", [s3d.TopK(3), s3d.TopFraction(0.4), s3d.Knapsack(growth=0.5), s3d.Knapsack(budget=90, cost="params")]
)
def test_policies_take_the_highest_priorities(policy):
    run = measured(BY_NAME["mlp-tanh"])
    found = s3d.new_neurons(run.model, run.graph)
    plan = s3d.select(found, run.graph, policy)
    assert 0 < plan.neurons < sum(run.graph.widths.values())
    assert (plan.gain, plan.seed, plan.held_out_gain) == (0.0, 0, None)
    if isinstance(policy, s3d.TopK):
        every = torch.cat([found.priorities[name] for name in run.graph.widths])
        chosen = torch.cat([plan.copies[name] for name in run.graph.widths]) == 2
        assert set(every.topk(3).indices.tolist()) == set(chosen.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("case", WIDE, ids=lambda case: case.name)
def test_selection_keeps_parts_equal(case):
    run = measured(case)
    plan = s3d.select(s3d.new_neurons(run.model, run.graph), run.graph, s3d.Knapsack(growth=0.8))
    check_unchanged(case, s3d.split(run.model, run.graph, plan))
    assert plan.macs <= 1.8 * s3d.count(run.graph).macs


def test_a_plan_comes_back_from_the_disk():
    run = measured(BY_NAME["residual-silu"])
    plan = s3d.select(s3d.new_neurons(run.model, run.graph, seed=5), run.graph, s3d.TopFraction(0.5))
    again = s3d.GrowthPlan.load(plan.to_json(), plan.to_tensors())
    first, second = (s3d.split(run.model, run.graph, p).model.state_dict() for p in (plan, again))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_optimizers_know_nothing_of_new_neurons(kind):
    case = BY_NAME["conv-bn-relu"]
    model = case.model()
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), lr=0.01, **options)
    for seed in range(3):
        inputs, targets = case.batch(seed=seed)
        case.loss_fn(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    graph = s3d.trace(model, case.inputs())
    plan = s3d.plan_from_copies(graph, one_beside_each(graph), s3d.new_neurons(model, graph))
    result = s3d.split(model, graph, plan, optimizer=optimizer)
    numbers = {name: n for n, (name, _) in enumerate(result.model.named_parameters())}
    moments = {
        n: next(v for k, v in s.items() if k in ("momentum_buffer", "exp_avg"))
        for n, s in result.optimizer_state["state"].items()
    }
    for group in result.graph.splittable_groups:
        kept = pack(group, {name: moments[n] for name, n in numbers.items()})
        assert (kept[1::2] == 0).all()
        assert (kept[0::2] != 0).any()
    new = torch.cat(
        [torch.arange(result.graph.num_channels)[group.channels][1::2] for group in result.graph.splittable_groups]
    )
    columns = [axis for axis in result.graph.axes() if axis.role is Role.COLUMN]
    assert any(torch.isin(axis.slots, new).any() for axis in columns)
    for axis in columns:
        of_slots, fresh = moments[numbers[axis.tensor]].movedim(axis.dim, 0), torch.isin(axis.slots, new)
        assert (of_slots[fresh] == 0).all()
        assert (of_slots[~fresh] != 0).any()


def test_moving_averages_grow_with_the_model():
    case = BY_NAME["conv-bn-relu"]
    run = measured(case)
    average = AveragedModel(run.model)
    with torch.no_grad():
        for parameter in average.module.parameters():
            parameter.mul_(2)
    plan = s3d.plan_from_copies(run.graph, one_beside_each(run.graph), s3d.new_neurons(run.model, run.graph))
    found = s3d.split_average(average, run.graph, plan).module.eval()
    torch.testing.assert_close(found(case.inputs()), average.module.eval()(case.inputs()))
    assert found(case.inputs()).sub(run.model(case.inputs())).abs().max() > 1e-3
    theirs, ours = dict(grown(case).model.named_parameters()), dict(found.named_parameters())
    for group in run.graph.splittable_groups:
        new, drawn = (F.normalize(pack(grown(case).graph[group.name], p)[1::2], dim=1) for p in (ours, theirs))
        torch.testing.assert_close(new, drawn)


@pytest.mark.parametrize("function", [torch.log, torch.sqrt, torch.rsqrt])
def test_functions_that_are_not_defined_everywhere_refuse_new_neurons(function):
    class Positive(nn.Sequential):
        def forward(self, x):
            return self[1](function(self[0](x)))

    torch.manual_seed(0)
    model = Positive(nn.Linear(4, 6), nn.Linear(6, 2))
    nn.init.uniform_(model[0].weight, 0.1, 1)
    nn.init.constant_(model[0].bias, 0.1)
    graph = s3d.trace(model, torch.rand(32, 4))
    plan = s3d.select(s3d.new_neurons(model, graph), graph, s3d.TopFraction(0.6))
    with pytest.raises(ModelError, match=r"^new neurons: expected functions that are defined everywhere"):
        s3d.split(model, graph, plan)
    assert s3d.split(model, graph, s3d.plan_from_copies(graph, plan.copies)).widths == plan.widths


def test_bad_input_is_refused_by_name():
    run, other = measured(BY_NAME["mlp-tanh"]), measured(BY_NAME["residual-silu"])
    found = s3d.new_neurons(run.model, run.graph)
    name = run.graph.splittable_groups[0].name
    with pytest.raises(ConfigError, match=r"copies: expected 2, the second a new neuron, got \{4\}"):
        s3d.select(found, run.graph, s3d.TopK(1), copies=4)
    with pytest.raises(ConfigError, match=f"{name}: expected at most 2 copies, the second a new neuron, got 3"):
        s3d.plan_from_copies(run.graph, {name: torch.full((run.graph[name].width,), 3)}, found)
    with pytest.raises(ModelError, match="priorities of new neurons, got none"):
        s3d.select(found, other.graph, s3d.TopK(1))
    with pytest.raises(ModelError, match="expected a parameter of shape"):
        s3d.new_neurons(other.model, run.graph)
    model = BY_NAME["mlp-tanh"].model()
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    with pytest.raises(
        ModelError, match=f"{name}: expected finite weights, got infinity or NaN; has training diverged"
    ):
        s3d.new_neurons(model, run.graph)
