"""Small networks of structures that other fields use, for the table of coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(channels: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch norm and SiLU."""
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.SiLU())


class UNet(nn.Module):
    """Segments images: a path down, a path up, and concatenated shortcuts (Ronneberger et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv_norm(3, 8), conv_norm(8, 16), conv_norm(16, 32)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.merge = nn.ModuleList([conv_norm(32, 16), conv_norm(16, 8)])
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of every pixel."""
        shortcuts = []
        for block in self.down[:-1]:
            x = block(x)
            shortcuts.append(x)
            x = F.max_pool2d(x, 2)
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), shortcuts.pop()], dim=1))
        return self.head(x)


class C2f(nn.Module):
    """A block of YOLO detectors: halves of the channels, bottlenecks on one, and everything concatenated."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        half = channels // 2
        self.first, self.last = conv_norm(channels, channels, 1), conv_norm(half * (2 + blocks), channels, 1)
        self.blocks = nn.ModuleList(nn.Sequential(conv_norm(half, half), conv_norm(half, half)) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        parts = list(self.first(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, dim=1))


class Yolo(nn.Module):
    """A detector of two scales without anchors, as far as its raw heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 8, stride=2), conv_norm(8, 16, stride=2), C2f(16, 1))
        self.deep = nn.Sequential(conv_norm(16, 32, stride=2), C2f(32, 2))
        self.neck = C2f(48, 1)
        self.heads = nn.ModuleList([nn.Conv2d(48, 9, 1), nn.Conv2d(32, 9, 1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return boxes and scores at two scales."""
        near = self.stem(x)
        far = self.deep(near)
        near = self.neck(torch.cat([near, F.interpolate(far, scale_factor=2)], dim=1))
        return [head(level) for head, level in zip(self.heads, (near, far), strict=True)]


class WaveNet(nn.Module):
    """Predicts audio: gated causal convolutions that see further and further back (van den Oord et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 8, 1)
        self.gates = nn.ModuleList(nn.Conv1d(8, 24, 2, dilation=2**i) for i in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(12, 16, 1) for _ in range(4))
        self.residuals = nn.ModuleList(nn.Conv1d(12, 8, 1) for _ in range(4))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 16, 1), nn.ReLU(), nn.Conv1d(16, 10, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of every step."""
        x, total = self.start(x), None
        for gate, skip, residual in zip(self.gates, self.skips, self.residuals, strict=True):
            signal, opening = gate(F.pad(x, (gate.dilation[0], 0))).chunk(2, dim=1)
            hidden = torch.tanh(signal) * torch.sigmoid(opening)
            total = skip(hidden) if total is None else total + skip(hidden)
            x = x + residual(hidden)
        return self.head(total)


def volumes() -> nn.Module:
    """Return a classifier of volumes or videos."""
    layers: list[nn.Module] = []
    for channels, width in ((1, 8), (8, 16), (16, 24)):
        layers += [nn.Conv3d(channels, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(), nn.MaxPool3d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(24, 5))


class GruHead(nn.Module):
    """Classifies sequences: convolutions, a GRU, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(6, 16, 3, padding=1), nn.ReLU(), nn.Conv1d(16, 12, 3, padding=1))
        self.gru = nn.GRU(12, 16, batch_first=True)
        self.head = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of every sequence."""
        states, _ = self.gru(self.encoder(x).transpose(1, 2))
        return self.head(states[:, -1])


class GraphConvolutions(nn.Module):
    """Classifies nodes of a graph from features and edges, given as a dense adjacency matrix (Kipf & Welling, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)])

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Return the scores of every node; adjacency (B, N, N) has rows that add up to one."""
        for layer in self.layers[:-1]:
            nodes = torch.relu(adjacency @ layer(nodes))
        return adjacency @ self.layers[-1](nodes)


class KanLayer(nn.Module):
    """A learnt function on every edge: weights over Gaussian bumps of every input (Liu et al., 2024)."""

    def __init__(self, inputs: int, outputs: int, bumps: int = 5) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-1, 1, bumps))
        self.base = nn.Linear(inputs, outputs)
        self.spline = nn.Parameter(torch.randn(outputs, inputs, bumps) / math.sqrt(inputs * bumps))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        bumps = torch.exp(-((2 * (x.unsqueeze(-1) - self.centres)) ** 2))
        return self.base(F.silu(x)) + torch.einsum("bik,oik->bo", bumps, self.spline)


class RepVggBlock(nn.Module):
    """Three branches that are one convolution once training is over (Ding et al., 2021)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.point = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.same = nn.BatchNorm2d(width) if channels == width else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the branches behind a ReLU."""
        out = self.wide(x) + self.point(x)
        return torch.relu(out if self.same is None else out + self.same(x))


def rep_vgg() -> nn.Module:
    """Return a classifier of RepVGG blocks."""
    blocks = (RepVggBlock(3, 12), RepVggBlock(12, 12), nn.MaxPool2d(2), RepVggBlock(12, 20), RepVggBlock(20, 20))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 5))


class HrNet(nn.Module):
    """Two resolutions side by side that exchange what they see (Wang et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.lower = conv_norm(3, 8), conv_norm(8, 16, stride=2)
        self.high = nn.ModuleList(conv_norm(8, 8) for _ in range(2))
        self.low = nn.ModuleList(conv_norm(16, 16) for _ in range(2))
        self.down = nn.ModuleList(nn.Conv2d(8, 16, 3, 2, 1) for _ in range(2))
        self.up = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(2))
        self.head = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of every pixel."""
        high = self.stem(x)
        low = self.lower(high)
        for i in range(2):
            high, low = self.high[i](high), self.low[i](low)
            shown = F.interpolate(self.up[i](low), size=high.shape[-2:], mode="bilinear")
            high, low = F.silu(high + shown), F.silu(low + self.down[i](high))
        return self.head(torch.cat([high, F.interpolate(low, size=high.shape[-2:], mode="bilinear")], dim=1))


class DiffusionBlock(nn.Module):
    """A block of a diffusion U-Net: group norm, a shift by the time, and attention over the positions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(4, channels) for _ in range(4))
        self.time = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, channels))
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.qkv, self.project = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the noise in images (B, 3, H, W) at times (B,)."""
        angles = time[:, None] * torch.logspace(0, -3, 4, dtype=x.dtype)
        shift = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        x = self.first(x)
        hidden = self.a(F.silu(self.norms[0](x))) + shift[:, :, None, None]
        x = x + self.b(F.silu(self.norms[1](hidden)))
        q, k, v = self.qkv(self.norms[2](x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return self.last(F.silu(self.norms[3](x + self.project(seen))))


IMAGES = (2, 3, 32, 32)
Shapes = tuple[tuple[int, ...], ...]

STRUCTURES: dict[str, tuple[Callable[[], nn.Module], Shapes]] = {  # and the shapes of random inputs, float64
    "U-Net": (UNet, (IMAGES,)),
    "YOLO with C2f": (Yolo, (IMAGES,)),
    "WaveNet": (WaveNet, ((2, 1, 64),)),
    "3-d CNN": (volumes, ((2, 1, 16, 16, 16),)),
    "GRU head": (GruHead, ((2, 6, 20),)),
    "graph convolution": (GraphConvolutions, ((2, 10, 6), (2, 10, 10))),
    "KAN": (lambda: nn.Sequential(KanLayer(6, 12), KanLayer(12, 12), KanLayer(12, 3)), ((8, 6),)),
    "RepVGG": (rep_vgg, (IMAGES,)),
    "HRNet": (HrNet, (IMAGES,)),
    "diffusion U-Net block": (DiffusionBlock, ((2, 3, 16, 16), (2,))),
}
