"""How a network is trained: the settings of a parametric phase, and its learning rate at every moment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nni_s3d.errors import ConfigError

OPTIMIZERS = ("sgd", "adam", "adamw")
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; names and defaults are those of torch.optim where it has them."""

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "sgd"  # "sgd", "adam" or "adamw"
    lr: float = 0.1
    momentum: float = 0.9  # of "sgd"
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True  # whether weight decay reaches batch norm and biases
    schedule: str = "cosine"  # "constant", "step", "cosine" or "wsd", over the steps after the warm-up
    milestones: tuple[float, ...] = (0.5, 0.75)  # of "step": fractions of all epochs
    gamma: float = 0.1  # of "step"
    min_lr: float = 0.0  # of "cosine"
    decay: float = 0.15  # of "wsd": fraction of all steps, at the end, in which the rate falls linearly to 0
    warmup_epochs: float = 0.0  # linear from 0
    label_smoothing: float = 0.0
    amp: bool = True  # automatic mixed precision, where a GPU is there
    channels_last: bool = False  # keep the channels of images and filters side by side in memory

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            ("lr", 0 < self.lr <= _LARGEST, f"a number > 0 and <= {_LARGEST:.3g}"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("nesterov", not self.nesterov or self.momentum > 0, "a momentum > 0 beside it"),
            ("weight_decay", 0 <= self.weight_decay <= _LARGEST, f"a number >= 0 and <= {_LARGEST:.3g}"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("milestones", all(0 <= m <= 1 for m in self.milestones), "fractions in [0, 1]"),
            ("gamma", 0 < self.gamma <= 1, "a number in (0, 1]"),
            ("decay", 0 < self.decay < 1, "a fraction in (0, 1)"),
            ("min_lr", 0 <= self.min_lr <= self.lr, "a number >= 0 and <= lr"),
            ("warmup_epochs", 0 <= self.warmup_epochs < self.epochs, "a number >= 0 below epochs"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "a number in [0, 1)"),
        ):
            if not holds:
                raise ConfigError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    def lasting(self, epochs: int) -> Recipe:
        """Return the same recipe over another number of epochs; the warm-up keeps its share."""
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=self.warmup_epochs * epochs / self.epochs)

    @property
    def memory_format(self) -> torch.memory_format:
        """PyTorch's name for how images and filters lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def stable_steps(self, steps: int) -> int:
        """Return after how many of a phase's steps the rate of "wsd" begins to fall."""
        return max(1, math.floor((1 - self.decay) * steps))


def rate_factor(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at a fractional epoch, relative to recipe.lr."""
    if epoch < recipe.warmup_epochs:
        return (epoch + 1e-3) / recipe.warmup_epochs
    return SCHEDULES[recipe.schedule](recipe, epoch)


def _cosine(recipe: Recipe, epoch: float) -> float:
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    low = recipe.min_lr / recipe.lr
    return low + (1 - low) * (1 + math.cos(math.pi * min(done, 1))) / 2


SCHEDULES: dict[str, Callable[[Recipe, float], float]] = {
    "constant": lambda recipe, epoch: 1.0,
    "step": lambda recipe, epoch: recipe.gamma ** sum(epoch >= m * recipe.epochs for m in recipe.milestones),
    "cosine": _cosine,
    "wsd": lambda recipe, epoch: min(1.0, (recipe.epochs - epoch) / (recipe.decay * recipe.epochs)),  # and stable
}
