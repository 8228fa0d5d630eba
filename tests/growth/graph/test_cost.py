from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.flop_counter import FlopCounterMode

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Operation
from nni_s3d.growth.graph.cost import COSTS, check_budget, marginal_cost, total_cost
from nni_s3d.growth.modules import call
from tests import reference
from tests.cases import BY_NAME, all_cases, measured
from tests.wide import Net, sample

KINDS = pytest.mark.parametrize("kind", COSTS)


def random_copies(graph: s3d.ChannelGraph, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return random copies of every splittable neuron by group, and over all channels."""
    by_group = reference.plan_of_random_copies(graph, (1, 2, 3, 4), seed)
    channels = torch.ones(graph.num_channels, dtype=torch.int64)
    for name, number in by_group.items():
        channels[graph[name].channels] = number
    return by_group, channels


@all_cases
def test_params_are_those_of_the_model(case):
    assert s3d.count(measured(case).graph).params == reference.params(case.model())


@all_cases
def test_macs_are_those_that_hooks_see(case):
    assert s3d.count(measured(case).graph).macs == reference.macs(case.model(), case.inputs())


@all_cases
def test_the_cost_of_a_grown_network_is_counted_without_building_it(case):
    run = measured(case)
    for seed in range(3):
        by_group, channels = random_copies(run.graph, seed)
        plan = s3d.plan_from_copies(run.graph, by_group)
        grown = s3d.split(run.model, run.graph, plan, epsilon=0)
        expected = s3d.count(run.graph, channels)
        assert (plan.params, plan.macs, plan.flops) == (expected.params, expected.macs, expected.flops)
        assert expected == s3d.count(s3d.trace(grown.model, case.inputs())) == s3d.count(grown.graph)
        assert expected.params == reference.params(grown.model)
        assert expected.macs == reference.macs(grown.model, case.inputs())
        assert expected.macs > s3d.count(run.graph).macs


@KINDS
@all_cases
def test_marginal_costs_at_the_middle_add_up_to_the_exact_increase(case, kind):
    graph = measured(case).graph
    for seed in range(3):
        _, channels = random_copies(graph, seed)
        prices = marginal_cost(graph, kind, channels)
        increase = total_cost(graph, kind, channels) - total_cost(graph, kind)
        assert float((prices * (channels - 1)).sum()) == pytest.approx(increase, rel=1e-12)


@KINDS
@all_cases
def test_a_marginal_cost_is_what_one_more_copy_costs(case, kind):
    graph = measured(case).graph
    for group in graph.splittable_groups:
        for i in range(group.width):
            copies = torch.ones(graph.num_channels, dtype=torch.int64)
            copies[group.first + i] = 2
            increase = total_cost(graph, kind, copies) - total_cost(graph, kind)
            # Where a group reads itself, the middle between both networks is the exact price.
            assert float(marginal_cost(graph, kind, copies)[group.first + i]) == pytest.approx(increase, rel=1e-12)


def test_neurons_are_those_that_can_be_split():
    graph = measured(BY_NAME["residual-silu"]).graph
    assert total_cost(graph, "neurons") == 4 + 3
    assert marginal_cost(graph, "neurons").tolist() == [1] * 7 + [0] * 3


def test_flops_as_the_tables_of_the_paper_count_them():
    graph = measured(BY_NAME["conv-bn-relu"]).graph
    macs = 4 * 2 * 9 * 36 + 3 * 4 * 9 * 4 + 3 * 3
    batch_norm = 2 * (4 * 36 + 3 * 4)
    activations = 4 * 36 + 3 * 4
    assert s3d.count(graph) == s3d.Cost(reference.params(BY_NAME["conv-bn-relu"].model()), macs, 2 * macs + 156 * 3)
    assert batch_norm + activations == 156 * 3


def test_the_slope_of_prelu_costs_as_much_shared_as_not():
    costs = [
        s3d.count(s3d.trace(nn.Sequential(nn.Linear(4, 5), nn.PReLU(n), nn.Linear(5, 3)), torch.zeros(2, 4))).flops
        for n in (1, 5)
    ]
    assert costs[0] == costs[1] == 2 * (4 * 5 + 5 * 3) + 5


def test_costs_do_not_depend_on_the_number_of_samples():
    case = BY_NAME["gated-tanh"]
    costs = {s3d.count(s3d.trace(case.model(), case.inputs(n))) for n in (1, 2, 7)}
    assert len(costs) == 1


def test_products_that_run_over_channels_grow_with_them():
    graph = measured(BY_NAME["mlp-relu"]).graph
    values = Operation("scaled_dot_product_attention", 7.0, slots=torch.tensor([0, 1, -1]))
    more = replace(graph, operations=(*graph.operations, values))
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    copies[0] = 3
    for now, size in ((None, 3), (copies, 5)):
        cost, without = s3d.count(more, now), s3d.count(graph, now)
        assert (cost.macs - without.macs, cost.flops - without.flops) == (7 * size, 2 * 7 * size)


def test_layers_that_cannot_grow_cost_too():
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x = torch.zeros(5, 4, dtype=torch.float64)
    cost = s3d.count(s3d.trace(model, x))
    assert cost.params == reference.params(model)
    assert cost.macs == reference.macs(model, x) == 4 * 6 + 6 * 3 + 3 * 2


def test_grouped_convolutions_cost_what_hooks_see():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1, dilation=2))
    x = torch.zeros(3, 4, 6, 6)
    assert s3d.count(s3d.trace(model, x)).macs == reference.macs(model, x)


def test_transposed_convolutions_are_not_free():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ConvTranspose1d(3, 2, 2))
    cost = s3d.count(s3d.trace(model, torch.zeros(2, 2, 5)))
    assert cost.macs == 2 * 3 * 2 * 4 + 3 * 2 * 2 * 4


def test_a_limit_in_a_cost_that_is_not_known_is_refused():
    graph = replace(measured(BY_NAME["mlp-relu"]).graph, uncounted=("fft_fft", "cdist"))
    said = "max_macs: expected a budget in params or neurons, got one in macs, which is not known of fft_fft, cdist"
    with pytest.raises(s3d.ConfigError, match=said):
        check_budget(graph, "macs", "max_macs")
    for kind in ("macs", "flops"):
        with pytest.raises(s3d.ConfigError, match=f"budget: expected a budget in params or neurons, got one in {kind}"):
            total_cost(graph, kind)
    for kind in ("params", "neurons"):
        check_budget(graph, kind, "budget")
        assert total_cost(graph, kind) > 0
    assert s3d.count(graph) == s3d.count(measured(BY_NAME["mlp-relu"]).graph)


def test_an_unknown_cost_is_refused():
    graph = measured(BY_NAME["mlp-relu"]).graph
    for function in (total_cost, marginal_cost):
        with pytest.raises(s3d.ConfigError, match="cost: expected one of params, macs, flops, neurons, got 'joules'"):
            function(graph, "joules")


def _fix(convolution: nn.Conv2d) -> nn.Conv2d:
    """Let the filter of a convolution be a buffer."""
    weight = convolution.weight.detach()
    del convolution.weight
    convolution.register_buffer("weight", weight)
    return convolution


@pytest.mark.parametrize("groups", [1, 4], ids=["producer", "depthwise"])
def test_fixed_filters_are_counted(groups):
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=groups, bias=False), nn.Conv2d(4, 6, 2)]
    model = nn.Sequential(*convolutions, nn.Tanh(), nn.Conv2d(6, 3, 2)).double()
    x = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    learnt = s3d.count(s3d.trace(model, x))
    filter_size = _fix(model[1]).weight.numel()
    graph = s3d.trace(model, x)
    assert s3d.count(graph) == replace(learnt, params=learnt.params - filter_size)
    assert graph.widths == {"0": 4, "2": 6}  # the fixed filters themselves cannot move
    copies = {"0": torch.tensor([2, 1, 3, 1]), "2": torch.tensor([1, 2, 1, 1, 4, 1])}
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, copies), epsilon=0)
    torch.testing.assert_close(grown.model(x), model(x), rtol=0, atol=1e-10)
    assert s3d.count(s3d.trace(grown.model, x)) == s3d.count(graph, graph.per_channel(copies))
    assert s3d.count(grown.graph).macs == reference.macs(grown.model, x)


def vectors() -> tuple[nn.Module, object]:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5)), sample(5)


def images_of_a_list() -> tuple[nn.Module, object]:
    convolutions = {"a": nn.Conv2d(3, 6, 3), "b": nn.Conv2d(6, 4, 3, groups=2), "c": nn.Conv2d(4, 2, 1)}
    resized = lambda images: torch.stack([F.adaptive_avg_pool2d(image, 6) for image in images])  # noqa: E731
    whole = lambda m, images: m.c(m.b(m.a(resized(images)).tanh()).tanh())  # noqa: E731
    return Net(whole, **convolutions), ([sample(3, 9, 9), sample(3, 8, 7)],)


def between(forward: Callable[..., Tensor], *shape: int, **modules: nn.Module) -> tuple[nn.Module, object]:
    """Return a network with something that cannot grow between two parts that can."""
    parts = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 5), "d": nn.Linear(5, 3)}
    whole = lambda m, x: m.d(m.c(forward(m, m.b(m.a(x).tanh()))).tanh())  # noqa: E731
    return Net(whole, **parts, **modules), sample(*shape)


def attention() -> nn.Module:
    return nn.MultiheadAttention(6, 2, batch_first=True)


STRUCTURES = {
    "one vector": vectors,
    "images of a list": images_of_a_list,
    "GRU": lambda: between(lambda m, x: m.t(x)[0], 2, 7, 4, t=nn.GRU(6, 6, batch_first=True)),
    "GRU cell": lambda: between(lambda m, x: m.t(x), 5, 4, t=nn.GRUCell(6, 6)),
    "attention": lambda: between(lambda m, x: m.t(x, x, x)[0], 2, 7, 4, t=attention()),
    "cross attention": lambda: between(lambda m, x: m.t(x[:, :2], x, x)[0], 2, 7, 4, t=attention()),
    "attention by products": lambda: between(lambda m, x: (x @ x.mT).softmax(-1) @ x, 2, 7, 4),
    "fused attention": lambda: between(lambda m, x: F.scaled_dot_product_attention(x, x, x), 2, 7, 4),
    "a sequence alone": lambda: between(lambda m, x: m.t(x, x, x)[0], 7, 4, t=attention()),
    "einsum": lambda: between(lambda m, x: torch.einsum("ni,ij->nj", x, m.t.weight), 5, 4, t=nn.Linear(6, 6)),
    "a computed weight": lambda: between(lambda m, x: F.linear(x, m.t.weight.tanh()), 5, 4, t=nn.Linear(6, 6)),
    "weight norm": lambda: between(lambda m, x: m.t(x), 5, 4, t=weight_norm(nn.Linear(6, 6))),
    "spectral norm": lambda: between(lambda m, x: m.t(x), 5, 4, t=spectral_norm(nn.Linear(6, 6))),
    "experts": lambda: between(
        lambda m, x: torch.cat([expert(x[i::2]) for i, expert in enumerate(m.t)]),
        *(6, 4),
        t=nn.ModuleList(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6)) for _ in range(2)),
    ),
    "embedding bag": lambda: (
        nn.Sequential(nn.EmbeddingBag(9, 4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)),
        torch.arange(8).reshape(2, 4),
    ),
    "grouped convolutions": lambda: (
        nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Tanh(), nn.ConvTranspose1d(6, 4, 2, 2), nn.Conv1d(4, 3, 1)),
        sample(2, 4, 8),
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_costs_grow_as_those_of_the_grown_network_do(name):
    torch.manual_seed(0)
    model, inputs = STRUCTURES[name]()
    model = model.double().eval()
    graph = s3d.trace(model, inputs)
    assert graph.splittable_groups
    by_group = s3d.with_equal_parts(graph, random_copies(graph, 0)[0])
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, by_group), epsilon=0)
    traced = s3d.trace(grown.model, inputs)
    cost = s3d.count(graph, graph.per_channel(by_group))
    assert cost == s3d.count(traced) == s3d.count(grown.graph)
    assert graph.uncounted == traced.uncounted == ()
    samples = (
        len(inputs[0])
        if isinstance(inputs, tuple)
        else 1
        if name in ("one vector", "a sequence alone")
        else len(inputs)
    )
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call(grown.model, inputs)
    assert cost.macs == pytest.approx(counter.get_total_flops() / 2 / samples, abs=0.5)
