import copy

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from nni_s3d.growth.modules import modules_restored
from nni_s3d.growth.surgery.install import install
from tests import reference
from tests.cases import BY_NAME, all_cases, measured, random_plan


def rebuilt(model: nn.Module) -> nn.Module:
    """Return a copy in which every layer is new, made from what the old one says of itself."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                fresh: nn.Module = nn.Linear(child.in_features, child.out_features, child.bias is not None)
            elif isinstance(child, nn.modules.conv._ConvNd):
                keys = "in_channels out_channels kernel_size stride padding dilation groups".split()
                fresh = type(child)(**{key: getattr(child, key) for key in keys}, bias=child.bias is not None)
            elif isinstance(child, nn.modules.batchnorm._BatchNorm):
                fresh = type(child)(child.num_features)
            elif isinstance(child, nn.PReLU):
                fresh = nn.PReLU(child.num_parameters)
            else:
                continue
            setattr(module, name, fresh)
    return model.double().eval()


@all_cases
def test_the_modules_say_of_themselves_what_they_are(case):
    run, x = measured(case), case.inputs(4, seed=9)
    grown = s3d.split(run.model, run.graph, random_plan(case, seed=3), epsilon=0.1).model
    fresh = rebuilt(grown)
    assert str(fresh) == str(grown)
    assert not torch.allclose(fresh(x), grown(x))
    fresh.load_state_dict(grown.state_dict())
    assert torch.equal(fresh(x), grown(x))


def test_parameters_stay_parameters_and_buffers_buffers():
    model = BY_NAME["conv-bn-relu"].model()
    model[1].weight.requires_grad_(False)
    install(model, {"1.weight": torch.ones(4), "1.running_mean": torch.ones(4), "0.weight": torch.ones(4, 2, 3, 3)}, ())
    assert isinstance(model[1].weight, nn.Parameter)
    assert not model[1].weight.requires_grad
    assert model[0].weight.requires_grad
    assert not isinstance(model[1].running_mean, nn.Parameter)
    assert dict(model.named_buffers())["1.running_mean"].tolist() == [1.0] * 4


def test_attributes_are_set_and_those_who_share_a_list_keep_it():
    model = nn.Sequential(nn.Identity(), nn.Identity())
    model[0].width, model[0].widths, model[0].pair = 3, [1, 2], (4, 5)
    model[1].widths = model[0].widths
    settings = [("0", "width", None), ("0", "widths", 0), ("0", "widths", 1), ("0", "pair", 1)]
    attributes = [WidthAttribute(*setting, torch.zeros(1, 1)) for setting in settings]
    install(model, {}, (), zip(attributes, (6, 7, 8, 9), strict=True))
    assert (model[0].width, model[0].widths, model[0].pair) == (6, [7, 8], (4, 9))
    assert model[1].widths == [1, 2]


def test_modules_are_restored_whatever_happens():
    model = BY_NAME["conv-bn-relu"].model()
    tensors = {name: id(x) for name, x in (*model.named_parameters(), *model.named_buffers())}

    def fail() -> None:
        with modules_restored(model):
            install(model, {"0.weight": torch.zeros(7, 2, 3, 3), "1.running_mean": torch.ones(7)}, ())
            model[0].out_channels, model[1].note = 7, "kept a result"
            del model[1]._buffers["num_batches_tracked"]
            raise KeyError

    with reference.untouched(model), pytest.raises(KeyError):
        fail()
    assert {name: id(x) for name, x in (*model.named_parameters(), *model.named_buffers())} == tensors
    assert model[0].out_channels == 4
    assert not hasattr(model[1], "note")


def test_sizes_that_modules_of_your_own_have_written_down():
    class Scale(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.channels, self.dim, self.kernel, self.groups = channels, channels, channels, 1
            self.gamma = nn.Parameter(torch.rand(channels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.gamma

    model = nn.Sequential(nn.Linear(4, 3), Scale(3), nn.Tanh(), nn.Linear(3, 2))
    graph = s3d.trace(model, torch.randn(2, 4))
    scale = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.tensor([2, 1, 1])})).model[1]
    assert (scale.channels, scale.dim, scale.kernel, scale.groups) == (4, 4, 3, 1)


@pytest.mark.parametrize("kept", [tuple, list, torch.Size])
def test_norms_say_what_they_are_over(kept):
    class Norm(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.normalized_shape, self.weight = kept((channels,)), nn.Parameter(torch.rand(channels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.layer_norm(x, self.normalized_shape, self.weight)

    norms = (Norm(3), nn.LayerNorm(3), nn.RMSNorm(3), nn.GroupNorm(1, 3))
    model = nn.Sequential(nn.Linear(4, 3), *norms, nn.Linear(3, 2))
    graph = s3d.trace(model, torch.randn(2, 4))
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.tensor([2, 2, 2])})).model
    assert [tuple(norm.normalized_shape) for norm in grown[1:4]] == [(6,)] * 3
    assert type(grown[1].normalized_shape) is kept
    assert (grown[4].num_channels, grown[4].num_groups) == (6, 1)


def test_one_number_that_a_norm_is_over():
    class Norm(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.normalized_shape, self.weight = channels, nn.Parameter(torch.rand(channels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.rms_norm(x, (self.normalized_shape,), self.weight)

    model = nn.Sequential(nn.Linear(4, 3), Norm(3), nn.Linear(3, 2))
    graph = s3d.trace(model, torch.randn(2, 4))
    assert s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": [2, 2, 2]})).model[1].normalized_shape == 6


def test_a_layer_that_owns_a_scale_of_what_it_reads_is_no_depthwise_one():
    class Scaled(nn.Conv1d):
        def __init__(self) -> None:
            super().__init__(3, 4, 1)
            self.scale = nn.Buffer(torch.rand(3))

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input * self.scale[:, None])

    model, x = nn.Sequential(nn.Conv1d(2, 3, 1), Scaled(), nn.Conv1d(4, 2, 1)).double(), torch.rand(5, 2, 6).double()
    graph = s3d.trace(model, x)
    plan = s3d.plan_from_copies(graph, {"0": torch.full((3,), 3), "1": torch.full((4,), 2)})
    grown = s3d.split(model, graph, plan, epsilon=0).model
    assert (grown[1].in_channels, grown[1].out_channels, grown[1].groups) == (9, 8, 1)
    torch.testing.assert_close(grown(x), model(x))
