import pytest
import torch

import nni_s3d as s3d
from nni_s3d.errors import ConfigError
from nni_s3d.models import mlp, mobilenet_v1, mobilenet_v1_small, rbf, resnet, vgg, vgg_small

MODELS = {
    "mobilenet_v1 32": (lambda: mobilenet_v1((4, 3, 5, 4, 6, 3, 4, 5, 3, 4, 4, 3, 5, 4)), (2, 3, 32, 32)),
    "mobilenet_v1 224": (lambda: mobilenet_v1((3,) * 14, num_classes=7, image_size=224), (1, 3, 224, 224)),
    "mobilenet_v1_small 8": (lambda: mobilenet_v1_small((4, 5, 6, 3, 4, 5)), (3, 1, 8, 8)),
    "mobilenet_v1_small 28": (lambda: mobilenet_v1_small((4, 5, 6, 3, 4, 5), image_size=28), (3, 1, 28, 28)),
    "mobilenet_v1_small 32": (
        lambda: mobilenet_v1_small((4, 5, 6, 3, 4, 5), in_channels=3, image_size=32),
        (2, 3, 32, 32),
    ),
    "mlp": (lambda: mlp((5, 4), in_features=6, activation="SiLU"), (3, 6)),
    "rbf": (lambda: rbf((3,)), (5, 1)),
    "vgg": (lambda: vgg((3, 4, 5, 3, 4, 6, 3, 4)), (2, 3, 16, 16)),
    "vgg_small 8": (lambda: vgg_small((3, 4, 5, 3), image_size=8), (3, 1, 8, 8)),
    "vgg_small 32": (lambda: vgg_small((3, 4, 5, 3), 7, 3, 32), (2, 3, 32, 32)),
    "resnet": (lambda: resnet((3, 4, 5, 6, 3, 4, 5, 7, 3), blocks=2), (2, 3, 8, 8)),
}


def test_mobilenet_has_the_published_size():
    cost = s3d.count(s3d.trace(mobilenet_v1(), torch.zeros(1, 3, 32, 32)))
    assert (round(cost.params / 1e6, 3), round(cost.macs / 1e6, 2), round(cost.flops / 1e6, 2)) == (3.309, 46.45, 94.13)


def test_seed_has_the_published_size():
    cost = s3d.count(s3d.trace(mobilenet_v1((32,) * 14), torch.zeros(1, 3, 32, 32)))
    assert (cost.params, round(cost.macs / 1e6, 2)) == (22_948, 3.21)


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_named_after_the_widths(name):
    build, shape = MODELS[name]
    graph = s3d.trace(build(), torch.zeros(shape))
    refused = {group.name for group in graph if not group.splittable}
    assert refused == {"output"} if name == "rbf" else refused == {"classifier"}
    if name.startswith("mobilenet_v1_small"):
        assert graph.widths == dict(zip(["conv0", "pw1", "pw2", "pw3", "pw4", "pw5"], (4, 5, 6, 3, 4, 5), strict=True))


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (vgg, [f"conv{i}" for i in range(1, 9)]),
        (lambda **settings: resnet(**settings, blocks=2), None),
        (mobilenet_v1, ["conv0", *(f"pw{i}" for i in range(1, 14))]),
    ],
)
def test_every_width_is_that_of_the_group_of_its_name(build, names):
    widths = s3d.trace(build(), torch.randn(1, 3, 32, 32)).widths
    assert names is None or list(widths) == names
    other = {name: 3 + i for i, name in enumerate(widths)}
    assert s3d.trace(build(widths=other), torch.randn(1, 3, 32, 32)).widths == other


@pytest.mark.parametrize("copies", [2, 3, 4])
@pytest.mark.parametrize("name", MODELS)
def test_epsilon_zero_changes_nothing(name, copies):
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    inputs = torch.randn(shape, dtype=torch.float64)
    graph = s3d.trace(model, inputs)
    some = {g.name: torch.where(torch.arange(g.width) % 2 == 0, copies, 1) for g in graph.splittable_groups}
    plan = s3d.plan_from_copies(graph, some, c=1.3)
    grown = s3d.split(model, graph, plan, epsilon=0.0).model
    assert plan.neurons > 0
    assert (grown(inputs) - model(inputs)).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mobilenet_v1((1, 2)), "expected 14 of them"),
        (lambda: mobilenet_v1_small({"conv0": 3}), "'pw1' is missing"),
        (lambda: mobilenet_v1_small({f"pw{i}": 3 for i in range(1, 7)} | {"conv0": 3}), "'pw6' is unknown"),
        (lambda: mobilenet_v1_small((0, 1, 1, 1, 1, 1)), "whole number >= 1 for 'conv0', got 0"),
        (lambda: mobilenet_v1(image_size=33), "image_size: expected one of 224, 32, got 33"),
        (lambda: vgg_small(image_size=16), "image_size: expected one of 32, 28, 8, got 16"),
        (lambda: mlp((3,), activation="Nope"), "activation: expected the name of a class"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
