"""What is left of a network is the network with zeros in the columns that read the removed neurons."""

import copy
import doctest

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import ChannelGraph
from tests import reference
from tests.cases import BY_NAME, CASES, Mlp, measured
from tests.columns import multiply_columns
from tests.growth.surgery.test_grown_values import MIDDLES
from tests.growth.surgery.test_optimizer_state import OPTIMIZERS, check_same_state, train
from tests.growth.surgery.test_split import check_same_graph
from tests.wide import WIDE, random_case

RANDOM = tuple(random_case(seed) for seed in range(60))
every_case = pytest.mark.parametrize("case", [*CASES, *WIDE, *RANDOM], ids=lambda case: case.name)
GROUPED = next(case for case in WIDE if case.name == "grouped")


def random_masks(graph: ChannelGraph, seed: int, least: int = 2) -> dict[str, torch.Tensor]:
    """Return masks that keep about half of the neurons, `least` of every group, and of every part of a group."""
    generator = torch.Generator().manual_seed(seed)
    masks = {g.name: torch.rand(g.width, generator=generator) < 0.5 for g in graph.splittable_groups}
    for group in graph.splittable_groups:
        channels = range(group.channels.start, group.channels.stop)
        parts = [
            [c - group.first for c in part if c in channels] for x in graph.equal_parts for part in x.parts.tolist()
        ]
        for part in (*parts, list(range(group.width))):
            masks[group.name][part[:least]] = True
    return s3d.with_equal_parts(graph, masks)


@torch.no_grad()
def without_columns(model: nn.Module, graph: ChannelGraph, masks: dict[str, torch.Tensor]) -> nn.Module:
    """Return a copy of a model with zeros in the columns of the neurons that the masks leave out."""
    model = copy.deepcopy(model)
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    multiply_columns(tensors, graph, torch.cat([graph.per_channel(masks).double(), torch.ones(1)]))
    return model


@every_case
def test_the_rest_computes_what_the_network_does_without_their_columns(case):
    run, x = measured(case), case.inputs()
    masks = random_masks(run.graph, seed=1)
    with reference.untouched(run.model):
        result = s3d.remove(run.model, run.graph, masks)
    expected = without_columns(run.model, run.graph, masks)
    torch.testing.assert_close(result.model(x), expected(x), rtol=0, atol=1e-10)
    check_same_graph(result.graph, s3d.trace(result.model, x))
    assert result.widths == result.graph.widths == {name: int(mask.sum()) for name, mask in masks.items()}
    assert all(torch.equal(result.index_map[name], mask.nonzero()[:, 0]) for name, mask in masks.items())
    cost = s3d.count(run.graph, run.graph.per_channel(masks))
    assert s3d.count(result.graph) == cost
    assert cost.params == reference.params(result.model)


@every_case
def test_dead_neurons_are_removed_exactly(case):
    run, x = measured(case), case.inputs()
    masks = random_masks(run.graph, seed=2)
    model = without_columns(run.model, run.graph, masks)
    torch.testing.assert_close(s3d.remove(model, run.graph, masks).model(x), model(x), rtol=0, atol=1e-10)


def test_neurons_whose_outputs_are_zero_are_dead():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    x = torch.randn(3, 2, 5, 5)
    model[1].weight.data[[1, 4]], model[1].bias.data[[1, 4]] = 0.0, -1.0
    for training in (False, True):
        pruned = s3d.remove(model.train(training), s3d.trace(model, x), {"0": [0, 2, 3, 5]}).model
        torch.testing.assert_close(pruned(x), model(x), rtol=1e-5, atol=1e-5)


def test_sizes_and_modes_stay_true():
    case = BY_NAME["separable-relu6"]
    model = case.model()
    model[0].weight.requires_grad_(False)
    model[4].train()
    result = s3d.remove(model, measured(case).graph, {"0": [2, 0], "6": [True, False, True, True]})
    pruned = result.model
    assert (pruned[0].out_channels, pruned[1].num_features) == (2, 2)
    assert (pruned[3].in_channels, pruned[3].out_channels, pruned[3].groups) == (2, 2, 2)
    assert (pruned[9].in_channels, pruned[9].out_channels, pruned[9].groups) == (3, 6, 3)
    assert torch.equal(pruned[0].weight, model[0].weight[[0, 2]])
    assert not pruned[0].weight.requires_grad
    assert [m.training for m in pruned.modules()] == [m.training for m in model.modules()]
    assert result.widths == {"0": 2, "6": 3, "12": 3}  # a group that is not named keeps all
    fresh = Mlp(nn.Tanh, (3, 4)).double()
    case = BY_NAME["mlp-tanh"]
    fresh.load_state_dict(s3d.remove(case.model(), measured(case).graph, {"0": [0, 1, 2]}).model.state_dict())


@pytest.mark.parametrize("name", MIDDLES)
def test_rows_that_are_divided_by_their_size_stay_what_they_are(name):
    torch.manual_seed(0)
    middle = {**MIDDLES, "weight norm in blocks": lambda: weight_norm(nn.Conv2d(6, 6, 2, groups=2))}[name]()
    size, blocks = middle.in_channels, middle.groups
    model = nn.Sequential(nn.Conv2d(2, size, 1), nn.SiLU(), middle, nn.SiLU(), nn.Conv2d(middle.out_channels, 2, 1))
    model, x = model.double().eval(), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    gone = [0, 4] if blocks > 1 else [1]
    if name == "weight standardisation":  # whose columns must sum to zero
        middle.weight.data[:, 1] = middle.weight.data[:, [0, 2]].mean((1, 2, 3), keepdim=True)[:, 0]
    elif blocks == 1:
        assert model[2].weight[:, 1].abs().max() > 0.1
    model[0].weight.data[gone], model[0].bias.data[gone] = 0, 0
    graph, keep = s3d.trace(model, x), {"0": [n for n in range(size) if n not in gone]}
    pruned = s3d.remove(model, graph, keep).model
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-12, atol=1e-12)


def test_a_large_network_is_pruned_to_each_smaller_one():
    case = BY_NAME["residual-silu"]
    model, graph, x = case.model(), measured(case).graph, case.inputs()
    for width in (3, 2):
        masks = {group.name: torch.arange(group.width) < width for group in graph.splittable_groups}
        expected = without_columns(model, graph, masks)(x)
        result = s3d.remove(model, graph, masks)
        model, graph = result.model, result.graph
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mlp-tanh", "separable-silu", "residual-relu", "pool-flatten-leaky", "prelu"])
def test_what_stays_has_gathered_what_it_would_have_without_dead_neurons(name, kind):
    """With a learning rate of 0, remove-then-train and train-then-remove must give the same buffers."""
    case = BY_NAME[name]
    graph = measured(case).graph
    masks = random_masks(graph, seed=3)
    parent = without_columns(case.model(), graph, masks)
    child = s3d.remove(parent, graph, masks).model
    optimizers = [OPTIMIZERS[kind](model.parameters()) for model in (parent, child)]
    for model, optimizer in zip((parent, child), optimizers, strict=True):
        train(case, model, optimizer, range(3))
    carried = s3d.remove(parent, graph, masks, optimizers[0]).optimizer_state
    check_same_state(carried, optimizers[1].state_dict())


# -- refusals ------------------------------------------------------------------------------------------------------

MLP = BY_NAME["mlp-tanh"]
WRONG = {
    "no group": (MLP, {"x": [0]}, s3d.ModelError, "channel group 'x': expected one of 0, 2, 4"),
    "an output": (MLP, {"4": [0]}, s3d.ModelError, "keep: 4: expected a group that can be split, but it is an output"),
    "nothing": (MLP, {"0": []}, s3d.ConfigError, "keep: 0: expected at least one neuron that stays, got none"),
    "an empty mask": (MLP, {"0": [False] * 5}, s3d.ConfigError, "keep: 0: expected at least one neuron .*, got none"),
    "a short mask": (MLP, {"0": [True] * 4}, s3d.ConfigError, r"0: expected a mask of shape \(5,\), got \(4,\)"),
    "a large number": (MLP, {"0": [0, 5]}, s3d.ConfigError, "keep: 0: expected numbers from 0 to 4, got 5"),
    "a negative number": (MLP, {"0": [-1]}, s3d.ConfigError, "keep: 0: expected numbers from 0 to 4, got -1"),
    "a mask of integers": (
        MLP,
        {"0": torch.tensor([1, 0, 1, 1, 0])},
        s3d.ConfigError,
        r"keep: 0: expected every number once, or a mask of the type bool, got \[1, 0, 1, 1, 0\]",
    ),
    "fractions": (MLP, {"0": [0.5]}, s3d.ConfigError, r"keep: 0: expected numbers from 0 to 4, got \[0.5\]"),
    "a word": (MLP, {"0": "all"}, s3d.ConfigError, "keep: 0: expected a mask or numbers of neurons, got 'all'"),
    "no mapping": (MLP, [0], s3d.ConfigError, r"keep: expected a mapping {group: the neurons that stay}, got \[0\]"),
    "unequal blocks": (
        GROUPED,
        {"reduce": [0, 1, 2, 3, 4]},
        s3d.ModelError,
        r"keep: reduce: expected equal numbers in the 2 parts into which grouped\.weight cuts its channels, got 3, 2; ",
    ),
    "blocks of one channel": (
        GROUPED,
        {"reduce": [0, 3]},
        s3d.ModelError,
        "keep: reduce: expected two neurons or more that stay, in every part .*, got one, whose place a trace cannot",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_removed_is_refused_by_name(name):
    case, keep, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        s3d.remove(measured(case).model, measured(case).graph, keep)


class ChoosesByWidth(nn.Sequential):
    """Leaves a layer out when it is narrow."""

    def forward(self, x):
        hidden = self[0](x).tanh()
        return self[2](self[1](hidden) if hidden.shape[1] > 4 else hidden)


def test_a_network_that_changes_when_it_shrinks_is_refused():
    model = ChoosesByWidth(nn.Linear(2, 6), nn.PReLU(6), nn.Linear(6, 3))
    graph = s3d.trace(model, torch.randn(4, 2))
    assert graph.widths == {"0": 6}
    message = "keep: expected a network that can be traced without these neurons, but model: expected the grown network"
    with pytest.raises(s3d.ModelError, match=message):
        s3d.remove(model, graph, {"0": [0, 1, 2, 3]})


def test_the_examples_of_the_docstring():
    (examples,) = doctest.DocTestFinder().find(s3d.remove, globs={"torch": torch, "nn": nn})
    assert not doctest.DocTestRunner().run(examples).failed


# -- beside another program ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2", "densenet121"])
def test_the_same_channels_are_removed_as_torch_pruning_removes(name):
    torch_pruning, torchvision = pytest.importorskip("torch_pruning"), pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=10).eval()
    x = torch.randn(2, 3, 64, 64)
    graph = s3d.trace(model, x)
    layers = dict(model.named_modules())
    groups = graph.splittable_groups
    for group in (groups[0], groups[len(groups) // 2], groups[-1]):
        gone = [0, group.width // 2, group.width - 1]
        theirs = copy.deepcopy(model)
        layer = dict(theirs.named_modules())[group.producers[0].name]
        prune = torch_pruning.prune_conv_out_channels
        if isinstance(layers[group.producers[0].name], nn.Linear):
            prune = torch_pruning.prune_linear_out_channels
        dependencies = torch_pruning.DependencyGraph().build_dependency(theirs, example_inputs=x)
        dependencies.get_pruning_group(layer, prune, idxs=gone).prune()
        keep = [n for n in range(group.width) if n not in gone]
        ours = s3d.remove(model, graph, {group.name: keep}).model
        torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)
        assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}


def test_channels_that_are_averaged_stay():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    graph = s3d.trace(model, torch.randn(2, 2))
    with pytest.raises(s3d.ModelError, match="keep: expected all channels that 1 averages, or equally many"):
        s3d.remove(model, graph, {"0": [0, 1]})
    keep = s3d.select_keep(s3d.importance(model, graph, "l1"), graph, 1e9)
    assert keep["0"].all()
    with pytest.raises(s3d.ConfigError, match="budget: expected at least 12 macs"):
        s3d.select_keep(s3d.importance(model, graph, "l1"), graph, 5)
