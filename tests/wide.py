"""Seeded float64 networks of every structure that a trace follows beyond plain chains; all activations are smooth."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import ChannelGroup
from nni_s3d.growth.graph.refusals import OUTPUT
from tests.cases import Case


class Net(nn.Module):
    """A forward pass written as a function, over the modules that are given by name."""

    def __init__(self, forward: Callable[..., object], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self._forward = forward

    def forward(self, *inputs: Tensor) -> object:
        return self._forward(self, *inputs)


def Number(*shape: int) -> nn.Parameter:  # noqa: N802
    """Return a parameter that no layer owns."""
    return nn.Parameter(torch.rand(*shape))


def Fixed(*shape: int) -> nn.Buffer:  # noqa: N802
    """Return fixed numbers, which a network has as a buffer."""
    return nn.Buffer(torch.rand(*shape))


class Blur(nn.Module):
    """BlurPool: one fixed filter for each channel, whose number is an attribute."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.filters = channels, Fixed(channels, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.filters, groups=self.channels)


def linears(*sizes: tuple[int, int]) -> dict[str, nn.Module]:
    """Return linear layers a, b, c, ..."""
    torch.manual_seed(0)
    return {name: nn.Linear(*size) for name, size in zip("abcdef", sizes, strict=False)}


def sample(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def check_split(model: nn.Module, inputs: Tensor, graph: s3d.ChannelGraph, copies: int = 3) -> None:
    """Split every neuron without moving it and expect the same function, and the graph that a trace of it gives."""
    number = {group.name: torch.full((group.width,), copies) for group in graph.splittable_groups}
    result = s3d.split(model.eval(), graph, s3d.plan_from_copies(graph, number, c=2.5), epsilon=0)
    torch.testing.assert_close(result.model(inputs), model(inputs), rtol=0, atol=1e-10)
    assert s3d.trace(result.model, inputs).widths == result.graph.widths == result.widths


def check_refused(
    forward: Callable[..., object], modules: dict[str, nn.Module], shape: tuple[int, ...], reason: str
) -> None:
    """Expect that the group a cannot be split, for this reason, which says what could be written instead."""
    graph = s3d.trace(Net(forward, **modules).double(), sample(*shape))
    group = graph["a"]
    assert not group.splittable
    expect_reason(group, reason)
    with pytest.raises(s3d.ModelError, match="a: expected a splittable group, but " + reason):
        s3d.plan_from_copies(graph, {"a": torch.ones(group.width)})


def expect_reason(group: ChannelGroup, met: str) -> None:
    """Expect this reason (a regular expression), which says where it is and what could be written instead."""
    nothing_to_write = met.rstrip("\\)").endswith(OUTPUT)
    instead = "" if nothing_to_write or "; " in met else r"( in [^;]+)?; \w.+"
    assert re.fullmatch(met + instead, group.reason), group.reason


def check_rest_grows(
    forward: Callable[..., object], modules: dict[str, nn.Module], shape: tuple[int, ...], reason: str
) -> None:
    """Expect that a layer before the group a can be split all the same."""
    before, after = nn.Linear(shape[-1], shape[-1]), nn.Linear(shape[-1], shape[-1])
    model = Net(lambda m, x: forward(m, m.after(m.before(x).tanh())), **modules, before=before, after=after).double()
    graph = s3d.trace(model, sample(*shape))
    assert "before" in graph.widths
    assert "a" not in graph.widths
    check_split(model, sample(*shape), graph, copies=2)


def check_accepted(
    forward: Callable[..., object],
    modules: dict[str, nn.Module],
    shape: tuple[int, ...],
    widths: dict[str, int],
    copies: int,
) -> None:
    """Expect that groups of these widths can be split."""
    model = Net(forward, **modules).double().eval()
    graph = s3d.trace(model, sample(*shape))
    assert graph.widths == widths
    check_split(model, sample(*shape), graph, copies)


def head(width: int) -> nn.Linear:
    return nn.Linear(width, 3)


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


class Dense(nn.Module):
    """DenseNet: every layer reads the concatenation of all before it, through a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in (3, 5, 7))
        self.convs = nn.ModuleList(nn.Conv2d(w, 2, 3, padding=1, bias=False) for w in (3, 5))
        self.transition, self.head = nn.Conv2d(7, 4, 1), head(4)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=False):
            features.append(conv(F.silu(norm(torch.cat(features, 1)))))
        x = self.transition(F.silu(self.norms[2](torch.cat(features, 1))))
        return self.head(F.silu(x).mean((2, 3)))


class Grouped(nn.Module):
    """ResNeXt: a grouped convolution between two pointwise ones, in a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.reduce = nn.Conv2d(4, 6, 1)
        self.grouped, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(6)
        self.expand, self.head = nn.Conv2d(6, 4, 1), head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        y = F.silu(self.norm2(self.grouped(F.silu(self.reduce(x)))))
        return self.head(pooled(F.silu(x + self.expand(y))))


class GroupedGate(nn.Module):
    """RegNetY: a grouped convolution whose output is gated by squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2, padding=1)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.project, self.head = nn.Conv2d(4, 4, 1), head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.grouped(F.silu(self.stem(x))))
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(pooled(F.silu(self.project(x * gate))))


class Shuffled(nn.Module):
    """ShuffleNetV1: grouped convolutions with a channel shuffle between them, and a depthwise one after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1, groups=2)
        self.depthwise, self.norm = nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 4, 1, groups=2), head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(F.silu(self.stem(x))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(pooled(F.silu(self.second(self.norm(self.depthwise(x))))))


class Split(nn.Module):
    """C2f: the halves of a layer go different ways and meet again side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(2, 6, 1), nn.Conv2d(3, 3, 3, padding=1)
        self.out, self.head = nn.Conv2d(9, 4, 1), head(4)

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.silu(self.stem(x)).chunk(2, dim=1)
        return self.head(pooled(F.silu(self.out(torch.cat([first, second, F.silu(self.inner(second))], 1)))))


class Ghost(nn.Module):
    """GhostNet and Res2Net: widths in attributes, one for a slice that is changed in place, and others for a split."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.width, self.widths = nn.Conv2d(2, 5, 1), 5, [1, 2]
        self.primary, self.cheap = nn.Conv2d(5, 3, 1), nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.reduce, self.inner = nn.Conv2d(5, 3, 1), nn.Conv2d(1, 2, 3, padding=1)
        self.out, self.head = nn.Conv2d(4, 4, 1), head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        y = F.silu(self.primary(x))
        out = torch.cat([y, self.cheap(y)], 1)[:, : self.width]
        out += x
        first, second = torch.split(torch.tanh(self.reduce(out)), self.widths, 1)
        return self.head(pooled(F.silu(self.out(torch.cat([F.silu(self.inner(first)), second], 1)))))


class Overlap(nn.Module):
    """A layer that is added to the concatenation of two others: its rows belong to two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.both = nn.Conv1d(2, 2, 1), nn.Conv1d(2, 3, 1), nn.Conv1d(2, 5, 1)
        self.read, self.head = nn.Conv1d(5, 4, 2), head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x).tanh(), self.right(x)], 1) + self.both(x)
        return self.head(F.silu(self.read(F.silu(x))).mean(2))


class UNet(nn.Module):
    """Down, up by a transposed convolution and by interpolation, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up, self.norm = nn.ConvTranspose2d(4, 3, 2, stride=2), nn.BatchNorm2d(3)
        self.fuse, self.head = nn.Conv2d(10, 3, 3), head(3)

    def forward(self, x: Tensor) -> Tensor:
        high = F.silu(self.down(x))
        deep = F.silu(self.deep(high))
        resized = F.interpolate(deep, size=high.shape[2:], mode="bilinear")
        return self.head(pooled(F.silu(self.fuse(torch.cat([high, F.silu(self.norm(self.up(deep))), resized], 1)))))


class Transformer(nn.Module):
    """A block of attention and one of a gated MLP, both with layer norm and layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.scale = nn.Parameter(torch.full((4,), 0.5))
        self.norm2, self.gate, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 4)
        self.norm3, self.fc1, self.fc2, self.head = nn.LayerNorm(4), nn.Linear(4, 6), nn.Linear(6, 4), head(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.scale * self.attention(y, y, y, need_weights=False)[0]
        y = self.norm2(x)
        x = x + self.scale * self.down(F.silu(self.gate(y)) * self.up(y))
        x = x + self.fc2(F.gelu(self.fc1(self.norm3(x))))
        return self.head(x.mean(1))


class Heads(nn.Module):
    """Attention with one layer for all and the scale of its width, with batch norms, and with heads that are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.width, self.out = nn.Linear(4, 12), 2, nn.Linear(4, 4)
        self.query, self.key, self.norms = nn.Linear(4, 3), nn.Linear(4, 3), nn.ModuleList(map(nn.BatchNorm1d, (3, 3)))
        self.four, self.two, self.value = nn.Linear(4, 8), nn.Linear(4, 4), nn.Linear(4, 4)
        self.mix, self.head = nn.Linear(8, 4), head(4)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.all(x).reshape(*x.shape[:2], 3, 2, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        first, second = (norm(y.mT) for norm, y in zip(self.norms, (self.query(x), self.key(x)), strict=True))
        x = x + (0.5 * torch.einsum("bdn,bdm->bnm", torch.tanh(first), second)).softmax(-1) @ x
        query, key, value = (
            layer(x).unflatten(2, (heads, -1)).transpose(1, 2)
            for layer, heads in ((self.four, 4), (self.two, 2), (self.value, 2))
        )
        key, value = key.repeat_interleave(2, 1), torch.tanh(value).repeat_interleave(2, 1)
        scores = query @ (key * 0.7).transpose(-2, -1)
        return self.head(torch.tanh(self.mix((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))).mean(1))


class Scaled(nn.Module):
    """Layer scale and a learnt bias on a residual stream without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1), head(4)
        self.scale, self.shift = nn.Parameter(torch.rand(4, 1, 1)), nn.Parameter(torch.rand(1, 4, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x) + self.shift
        return self.head(pooled(F.silu(x + self.scale * torch.tanh(self.block(F.silu(x))))))


class Volume(nn.Module):
    """Three dimensions, instance norm, and flattened positions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(1, 3, 2), nn.InstanceNorm3d(3, affine=True)
        self.hidden, self.head = nn.Linear(3 * 8, 4), head(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.softplus(self.hidden(F.silu(self.norm(self.conv(x))).flatten(1))))


class Auxiliary(nn.Module):
    """A second head that runs in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.head = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1), head(3)
        self.aux, self.aux_norm, self.aux_head = nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), head(2)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        x = F.silu(self.stem(x))
        out = self.head(pooled(F.silu(self.deep(x))))
        if not self.training:
            return out
        return {"out": out, "aux": self.aux_head(pooled(F.silu(self.aux_norm(self.aux(x)))))}


class GluNet(nn.Module):
    """Both kinds of gated linear unit over one layer: the function, and a chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(3, 8), head(4)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.second(F.glu(self.first(x), dim=-1)).chunk(2, -1)
        return self.head(value * F.gelu(gate))


class Points(nn.Module):
    """PointNet: a layer on every point, the largest value of each channel, and a skip of the global features."""

    def __init__(self) -> None:
        super().__init__()
        self.point, self.deep, self.head = nn.Conv1d(3, 4, 1), nn.Conv1d(4, 5, 1), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        local = torch.tanh(self.point(x))
        best = torch.tanh(self.deep(local)).max(dim=-1)[0]
        return self.head(torch.cat([best, local.mean(-1)], dim=1))


def by_products(x: Tensor, metric: Tensor) -> Tensor:
    """Return the squared distances of points (batch, channels, points), whose channels have weights in a metric."""
    inner = (x * metric[:, None]).mT @ x
    squares = inner.diagonal(dim1=1, dim2=2)
    return squares[:, :, None] - 2 * inner + squares[:, None]


def by_differences(x: Tensor, metric: Tensor) -> Tensor:
    """Return the same."""
    return (metric[:, None, None] * (x[..., None] - x[:, :, None]).square()).sum(1)


def edges(x: Tensor, distance: Tensor, k: int = 3) -> Tensor:
    """Return (batch, 2 channels, points, k): the differences from the nearest points, and the point itself."""
    nearest = distance.topk(k, largest=False).indices
    positions = x.mT
    neighbours = positions[torch.arange(len(x))[:, None, None], nearest]
    here = positions[:, :, None].expand_as(neighbours)
    return torch.cat((neighbours - here, here), -1).movedim(-1, 1)


class Neighbours(nn.Module):
    """Points that see their nearest neighbours among features, with distances written in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(2 * a, b, 1) for a, b in ((2, 4), (4, 3), (3, 4)))
        self.norm, self.head = nn.BatchNorm2d(4), head(11)
        self.place, self.products, self.differences = Fixed(2), Fixed(4), Fixed(3)

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.norm(self.convs[0](edges(x, by_products(x, self.place))))).mean(-1)
        b = F.silu(self.convs[1](edges(a, by_products(a, self.products)))).mean(-1)
        c = F.silu(self.convs[2](edges(b, by_differences(b, self.differences)))).mean(-1)
        return self.head(torch.cat((a, b, c), 1).mean(-1))


class WindowMerge(nn.Module):
    """Swin: patches are merged by slicing positions and concatenating channels, which come last."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.merge, self.head = nn.Conv2d(2, 3, 1), nn.Linear(12, 4, bias=False), head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.embed(x)).permute(0, 2, 3, 1)
        x = torch.cat([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(F.gelu(self.merge(x)).flatten(1, 2).mean(1))


class Constants(nn.Module):
    """Constants beside and on top of channels: they have values but do not move."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.read, self.head = nn.Linear(2, 4), nn.Conv2d(2, 4, 1), nn.Conv2d(10, 3, 1), head(3)
        self.shift, self.norm = nn.Parameter(torch.rand(1, 4, 4, 4)), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.tanh(self.a(pooled(x))[:, :, None, None] - self.shift)
        norm = self.norm
        two = torch.batch_norm(
            self.b(x), norm.weight, norm.bias, norm.running_mean, norm.running_var, False, 0.1, norm.eps, False
        )
        return self.head(pooled(F.silu(self.read(F.silu(torch.cat([x, one, F.pad(two, (1, 0))[..., 1:]], 1))))))


class Stream(nn.Module):
    """The stream of a vision transformer: a class token, embedded positions, and norms that average over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token, self.places = nn.Conv2d(2, 4, 2, stride=2), Number(1, 1, 4), Number(1, 5, 4)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.scale, self.mix, self.last = Number(4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        x = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        x = x + self.mix(self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)))
        return self.head(self.last(x)[:, 0])


class Averages(nn.Module):
    """Group norms of several channels each, global response normalisation, and attention by the mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.wide, self.gamma, self.beta = nn.Conv2d(4, 6, 1), Number(1, 6, 1, 1), Number(1, 6, 1, 1)
        self.narrow, self.norm2, self.where = nn.Conv2d(6, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(1, 1, 3, padding=1)
        self.free, self.head = nn.Conv2d(4, 5, 1), head(5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)))
        y = F.gelu(self.wide(x))
        size = y.norm(p=2, dim=(2, 3), keepdim=True)
        y = y + self.gamma * (y * size / (size.mean(1, keepdim=True) + 1e-6)) + self.beta
        x = self.norm2(x + self.narrow(y))
        x = x * torch.sigmoid(self.where(x.mean(1, keepdim=True)))
        return self.head(pooled(F.silu(self.free(x))))


class Tokens(nn.Module):
    """A mixer: linear layers and a convolution over tokens, which channels pass; and a gate as in gMLP."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Linear(4, 6), nn.Linear(3, 5), nn.Linear(5, 3)
        self.split, self.mix, self.join = nn.Linear(6, 4), nn.Conv1d(3, 3, 1), nn.Linear(2, 6)
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        x = x + self.down(torch.tanh(self.up(x.mT))).mT
        gated, gate = self.split(x).chunk(2, -1)
        return self.head(torch.tanh(x + self.join(gated * self.mix(gate))).mean(1))


class ClassToken(nn.Module):
    """A class token from a layer of its own, which lies beside the channels of another one in a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token, self.norm = nn.Linear(4, 6), nn.Linear(4, 6), nn.LayerNorm(6)
        self.hidden, self.back, self.head = nn.Linear(6, 3), nn.Linear(3, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((torch.tanh(self.token(x.mean(1, keepdim=True))), F.silu(self.stem(x))), 1)
        x = x + self.back(torch.tanh(self.hidden(self.norm(x))))
        return self.head(torch.tanh(x[:, 0]))


WIDE = (
    Case("constants", Constants, (2, 4, 4), smooth=True),
    Case("dense", Dense, (2, 5, 5), smooth=True),
    Case("grouped", Grouped, (2, 5, 5), smooth=True),
    Case("grouped-gate", GroupedGate, (2, 5, 5), smooth=True),
    Case("shuffled", Shuffled, (2, 4, 4), smooth=True),
    Case("split", Split, (2, 4, 4), smooth=True),
    Case("ghost", Ghost, (2, 4, 4), smooth=True),
    Case("overlap", Overlap, (2, 5), smooth=True),
    Case("unet", UNet, (2, 4, 4), smooth=True),
    Case("transformer", Transformer, (3, 4), smooth=True),
    Case("scaled", Scaled, (2, 5, 5), smooth=True),
    Case("volume", Volume, (1, 3, 3, 3), smooth=True),
    Case("auxiliary", Auxiliary, (2, 5, 5), smooth=True),
    Case("glu", GluNet, (4,), smooth=True),
    Case("points", Points, (3, 6), smooth=True),
    Case("neighbours", Neighbours, (2, 7), smooth=True),
    Case("window-merge", WindowMerge, (2, 4, 4), smooth=True),
    Case("stream", Stream, (2, 4, 4), smooth=True),
    Case("averages", Averages, (2, 4, 4), smooth=True),
    Case("tokens", Tokens, (3, 4), smooth=True),
    Case("class-token", ClassToken, (3, 4), smooth=True),
    Case("heads", Heads, (3, 4), smooth=True),
)


class Random(nn.Module):
    """A network drawn from a small grammar, see `BLOCKS`.

    A stream of channels goes through blocks; each is drawn with its widths, and hands a stream on.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = torch.Generator().manual_seed(seed)
        self.stem, width = nn.Conv2d(2, 4, 3, padding=1), 4
        blocks = []
        for _ in range(self._pick(2, 4)):
            block = BLOCKS[self._pick(0, len(BLOCKS) - 1)]
            blocks.append(block(width, self._pick))
            width = blocks[-1].width
        self.blocks, self.head = nn.ModuleList(blocks), head(width)
        del self._draw

    def _pick(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=self._draw))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(F.silu(x))
        return self.head(pooled(F.silu(x)))


class Chain(nn.Module):
    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width = pick(2, 4)
        self.conv = nn.Conv2d(width, self.width, 2 * pick(0, 1) + 1, padding="same", bias=bool(pick(0, 1)))
        self.norm = nn.BatchNorm2d(self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Branches(nn.Module):
    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width = pick(2, 4)
        self.one, self.two = (nn.Conv2d(width, self.width, k, padding="same") for k in (1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) * torch.tanh(self.two(x))


class Add(nn.Module):
    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, inner = width, pick(2, 3)
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(torch.tanh(self.reduce(x)))


class Concatenation(nn.Module):
    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        more = pick(1, 3)
        self.width = width + more
        self.conv, self.norm = nn.Conv2d(width, more, 3, padding=1), nn.BatchNorm2d(self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([x, self.conv(x)], 1))


class Partial(nn.Module):
    """FasterNet: a part of the channels is read, of a width that is an attribute."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.widths = width, [1, width - 1]
        self.conv, self.by_slices = nn.Conv2d(1, 1, 3, padding=1), bool(pick(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.by_slices:
            return torch.cat([x[:, self.widths[0] :], torch.tanh(self.conv(x[:, : self.widths[0]]))], 1)
        first, second = torch.split(x, self.widths, 1)
        return torch.cat([torch.tanh(self.conv(first)), second], 1)


class Gate(nn.Module):
    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width = width
        self.squeeze, self.excite = nn.Linear(width, 2), nn.Linear(2, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.silu(self.squeeze(pooled(x)))))[..., None, None]


class Depthwise(nn.Module):
    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        times = pick(1, 2)
        self.width = width * times
        self.conv = nn.Conv2d(width, self.width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class GroupedBlock(nn.Module):
    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width = 2 * pick(1, 2)
        self.wide = nn.Conv2d(width, 4, 1)
        self.conv = nn.Conv2d(4, self.width, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.silu(self.wide(x)))


class Kernels(nn.Module):
    """Selective kernels: a weighted sum over the branches of a stack, with weights of their own for each channel."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width = pick(2, 3)
        self.one, self.two = (nn.Conv2d(width, self.width, k, padding="same") for k in (1, 3))
        self.squeeze, self.excite = nn.Linear(self.width, 2), nn.Linear(2, 2 * self.width)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.tanh(torch.stack([self.one(x), self.two(x)], 1))
        gates = torch.softmax(self.excite(F.silu(self.squeeze(pooled(both.sum(1))))).view(len(x), 2, -1), 1)
        return (both * gates[..., None, None]).sum(1)


class ByHand(nn.Module):
    """A linear layer that is written as a matrix product, in one of several ways."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.way = pick(2, 4), pick(0, 4)
        self.weight = nn.Parameter(torch.randn(width, self.width) / 2)
        if self.way in (0, 1):
            self.weight = nn.Parameter(self.weight.detach().T.contiguous())
        self.bias = nn.Parameter(torch.rand(self.width))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == 0:
            return (x.permute(0, 2, 3, 1) @ self.weight.T + self.bias).permute(0, 3, 1, 2)
        if self.way == 1:
            return (self.weight @ x.flatten(2)).unflatten(2, x.shape[2:]) + self.bias[None, :, None, None]
        if self.way == 2:
            return torch.einsum("nchw,cd->ndhw", x, self.weight) + self.bias.view(-1, 1, 1)
        if self.way == 3:
            return F.conv2d(x, self.weight.t()[..., None, None], self.bias)
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        return torch.addmm(self.bias, rows, self.weight).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


class Frozen(nn.Module):
    """Batch norm and layer scale as people write them themselves: tensors that are reshaped and computed first."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.conv = width, nn.Conv2d(width, width, 1)
        self.weight, self.bias, self.mean, self.var = (Fixed(width) for _ in range(4))
        self.gamma, self.temperature = Number(width), Number(1, width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (t.reshape(1, -1, 1, 1) for t in (self.weight, self.bias, self.mean, self.var))
        scale = weight * (var + 1e-5).rsqrt()
        y = self.conv(x) * scale + (bias - mean * scale)
        gate = torch.sigmoid(pooled(y) * F.softplus(self.temperature).flatten())[..., None, None]
        return x + self.gamma[None, :, None, None] * y * gate.expand_as(y).type_as(y)


class Filtered(nn.Module):
    """Fixed filters in buffers, one for each channel and such that read all of them; a norm of every channel."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.conv, self.norm = width + 2, nn.Conv2d(width, width, 1), nn.GroupNorm(width, width)
        self.blur, self.transform = Fixed(width, 1, 3, 3), Fixed(2, width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = torch.tanh(F.conv2d(x, self.blur, padding=1, groups=x.shape[1]))
        return torch.cat([self.norm(x), F.conv2d(x, self.transform)], 1)


class Up(nn.Module):
    """A transposed convolution in blocks, or with several filters for each channel."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        groups, times = (2, 1) if pick(0, 1) else (4, pick(1, 2))
        self.width, self.wide = 4 * times, nn.Conv2d(width, 4, 1)
        self.conv = nn.ConvTranspose2d(4, self.width, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.silu(self.wide(x)))


class Positions(nn.Module):
    """Positions that are picked, masked, and mixed by attention or a layer over them, which leave channels whole."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.mix = width, nn.Linear(4, 4) if pick(0, 1) else nn.Identity()
        self.query, self.value = nn.Conv2d(width, 2, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.query(x).flatten(2)
        mixed = torch.softmax(keys.mT @ keys, -1) @ torch.tanh(self.value(x)).flatten(2).mT
        y = self.mix(mixed.mT.unflatten(2, x.shape[2:]))
        y = y[:, :, torch.tensor([1, 0, 0, 3])].index_select(3, torch.tensor([0, 2, 1, 1]))
        return x + y.masked_fill(y.new_zeros(y.shape[2:], dtype=torch.bool).fill_diagonal_(True), 0.5)


class Attending(nn.Module):
    """Attention with one or two heads, in one of several ways."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.way, self.heads = width, pick(0, 2), pick(1, 2)
        sizes = (4, 4, width) if self.heads == 1 or width % 2 == 0 else (4, 4, width + 1)
        self.query, self.key, self.value = (nn.Conv2d(width, size, 1) for size in sizes)
        self.out = nn.Linear(sizes[2], width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).flatten(2).unflatten(1, (self.heads, -1)).mT for layer in (self.query, self.key, self.value)
        )
        if self.way == 0:
            y = F.scaled_dot_product_attention(torch.tanh(query), key, value)
        elif self.way == 1:
            y = (query * 0.5 @ F.silu(key).mT).softmax(-1) @ value
        else:
            y = torch.einsum("bhnm,bhmd->bhnd", torch.einsum("bhnd,bhmd->bhnm", query, key).sigmoid(), value)
        return x + self.out(y.transpose(1, 2).flatten(2)).mT.unflatten(2, x.shape[2:])


class Averaged(nn.Module):
    """A norm or another average over channels, in one of several ways."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.way = 2 * pick(1, 2), pick(0, 7)
        self.conv, self.token = nn.Conv2d(width, self.width, 1), Number(1, self.width, 1, 1)
        self.norm = nn.GroupNorm(1 + self.way % 2, self.width) if self.way < 2 else nn.LayerNorm(self.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.way < 2:
            return self.norm(x)
        if self.way == 2:
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.way == 3:
            return x * self.token * (x.pow(2).mean(1, keepdim=True) + 0.1).rsqrt()
        if self.way == 4:
            return (x - x.mean(1, keepdim=True)) / (0.1 + x.std(1, correction=0, keepdim=True))
        if self.way == 5:
            size = x.norm(dim=(2, 3), keepdim=True)
            return x + x * size / (size.mean(1, keepdim=True) + 0.1)
        if self.way == 6:
            return x * torch.sigmoid(x.mean(1, keepdim=True))
        x = torch.cat([self.token.expand(len(x), -1, 4, 1), x[..., 1:]], -1)
        return F.rms_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=0.1).permute(0, 3, 1, 2)


class Computed(nn.Module):
    """A layer whose weight is computed: by weight norm, with a product of low rank, or with a mask."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.way = pick(2, 4), pick(0, 2)
        self.conv = nn.Conv2d(width, self.width, 1)
        if self.way == 0:
            self.conv = nn.utils.parametrizations.weight_norm(self.conv)
        self.first, self.second = Number(self.width, 2), Number(2, width)
        self.mask = nn.Buffer((torch.arange(self.width * width) % 3 > 0).double().view(self.width, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == 0:
            return self.conv(x)
        matrix = self.conv.weight.flatten(1)
        low_rank = (self.first[:, :, None] * self.second).sum(1)  # whose MACs are no work on a sample
        matrix = matrix + low_rank if self.way == 1 else matrix * self.mask
        return F.conv2d(x, matrix[..., None, None], self.conv.bias)


class Mixture(nn.Module):
    """Experts in a stack, weighed by a gate for each position: in a loop, or by products of all at once."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.way, experts = width, pick(0, 2), pick(2, 3)
        self.gate, self.up, self.bias = nn.Linear(width, experts), Number(experts, 4, width), Number(experts, 4)
        self.down = Number(experts, width, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(1, 2).flatten(0, 1)
        gates = self.gate(rows).softmax(1)
        if self.way == 0:
            y = torch.zeros_like(rows)
            for e, (up, bias, down) in enumerate(zip(self.up, self.bias, self.down, strict=True)):
                seen = torch.arange(e % 2, len(rows), 2)
                y.index_add_(0, seen, F.glu(F.linear(rows[seen], up, bias)) @ down.T * gates[seen, e, None])
        elif self.way == 1:
            hidden = F.glu(rows @ self.up.mT + self.bias[:, None], dim=-1)
            y = (torch.bmm(hidden, self.down.mT) * gates.T[..., None]).sum(0)
        else:
            hidden = F.glu(torch.einsum("tc,erc->ter", rows, self.up) + self.bias, dim=-1)
            y = torch.einsum("te,tec->tc", gates, torch.einsum("ter,ecr->tec", hidden, self.down))
        return x + y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


class Again(nn.Module):
    """A layer that is called twice, on two sizes of a pyramid or on what it has put out."""

    def __init__(self, width: int, pick: Callable[[int, int], int]) -> None:
        super().__init__()
        self.width, self.way = width, pick(0, 1)
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.way:
            return self.conv(torch.tanh(self.conv(x)))
        small = self.conv(torch.tanh(F.avg_pool2d(x, 2)))
        return torch.tanh(self.conv(x)) + F.interpolate(small, scale_factor=2)


BLOCKS = (
    *(Chain, Branches, Add, Concatenation, Gate, Depthwise, GroupedBlock),
    *(Kernels, ByHand, Frozen, Filtered, Up, Positions, Partial, Averaged, Computed, Mixture, Again, Attending),
)


def random_case(seed: int) -> Case:
    return Case(f"random-{seed}", partial(Random, seed), (2, 4, 4), smooth=True, seed=seed)
