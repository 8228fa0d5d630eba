"""The parametric phase: train the weights of a fixed network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import unwrap
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from tqdm import tqdm

from nni_s3d.errors import ConfigError, StoreError, first_line
from nni_s3d.growth.modules import evaluation_mode
from nni_s3d.growth.seeds import seed_for
from nni_s3d.tasks.data import Loader

T = TypeVar("T", bound=Optimizer)


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
    schedule: str = "cosine"  # "constant", "step" or "cosine", over the steps after the warm-up
    milestones: tuple[float, ...] = (0.5, 0.75)  # of "step": fractions of all epochs
    gamma: float = 0.1  # of "step"
    min_lr: float = 0.0  # of "cosine"
    warmup_epochs: float = 0.0  # linear from 0
    label_smoothing: float = 0.0
    amp: bool = True  # automatic mixed precision, where a GPU is there
    channels_last: bool = False  # keep the channels of images and filters side by side in memory

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("optimizer", self.optimizer in _OPTIMIZERS, f"one of {', '.join(_OPTIMIZERS)}"),
            ("lr", self.lr > 0, "a number > 0"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("nesterov", not self.nesterov or self.momentum > 0, "a momentum > 0 beside it"),
            ("weight_decay", self.weight_decay >= 0, "a number >= 0"),
            ("schedule", self.schedule in _SCHEDULES, f"one of {', '.join(_SCHEDULES)}"),
            ("milestones", all(0 <= m <= 1 for m in self.milestones), "fractions in [0, 1]"),
            ("gamma", 0 < self.gamma <= 1, "a number in (0, 1]"),
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


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on one set."""

    accuracy: float
    loss: float


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to know of, or keep from, a running phase."""

    load: Callable[[], dict[str, Any] | None] = lambda: None  # the last checkpoint, if there is one
    save: Callable[[dict[str, Any]], None] = lambda state: None  # called after every epoch
    progress: Callable[[int, int], None] = lambda epoch, epochs: None  # after every epoch: how many are done
    checkpoint: str = "checkpoint"  # what an error calls it


def train(
    model: nn.Module,
    loader: Loader,
    recipe: Recipe,
    seed: int = 0,
    hooks: Hooks | None = None,
    title: str = "train",
) -> Optimizer:
    """Train a model in place, in its own precision, and return the optimizer as it is at the end.

    Every epoch's randomness follows from (seed, epoch) alone, so a phase that goes on from a checkpoint ends with the
    same weights as one that was never interrupted. A progress bar is shown when standard error is a terminal.

    Raises:
        StoreError: the checkpoint is one of another network or recipe.
    """
    hooks = hooks or Hooks()
    for parameter in (p for p in model.parameters() if p.dim() == 4):
        parameter.data = parameter.data.contiguous(memory_format=recipe.memory_format)
    optimizer = _OPTIMIZERS[recipe.optimizer](_parameter_groups(model, recipe), recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(recipe, step / len(loader)))
    device = next(model.parameters()).device
    amp = recipe.amp and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=amp)
    phase = _Phase(model, optimizer, scheduler, scaler)
    first = _restore(phase, recipe, hooks)
    model.train()
    with tqdm(total=recipe.epochs, initial=first, desc=title, unit="epoch", disable=None, leave=False) as bar:
        for epoch in range(first, recipe.epochs):
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed_for(seed, epoch))  # dropout
                loss = _epoch(phase, loader, recipe, epoch)
            hooks.save({"epoch": epoch + 1} | {name: part.state_dict() for name, part in vars(phase).items()})
            hooks.progress(epoch + 1, recipe.epochs)
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()
    return optimizer


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader) -> Evaluation:
    """Return accuracy and mean cross entropy over a set, in evaluation mode."""
    right, loss = 0.0, 0.0
    with evaluation_mode(model):
        for inputs, targets in loader:
            outputs = model(inputs)
            right += float((outputs.argmax(dim=1) == targets).sum())
            loss += float(F.cross_entropy(outputs, targets, reduction="sum"))
    return Evaluation(right / len(loader.images), loss / len(loader.images))


@dataclass(frozen=True)
class _Phase:
    """Everything that changes while a network is trained, by the names that its checkpoint uses."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler


def _epoch(phase: _Phase, loader: Loader, recipe: Recipe, epoch: int) -> float:
    """Train for one epoch and return the loss of its last batch."""
    loss = torch.zeros(())
    for inputs, targets in loader.epoch(epoch):
        inputs = inputs.contiguous(memory_format=recipe.memory_format)
        phase.optimizer.zero_grad()
        with torch.autocast(inputs.device.type, enabled=phase.scaler.is_enabled()):
            loss = F.cross_entropy(phase.model(inputs), targets, label_smoothing=recipe.label_smoothing)
        phase.scaler.scale(loss).backward()
        phase.scaler.step(phase.optimizer)
        phase.scaler.update()
        phase.scheduler.step()
    return loss.item()


def _restore(phase: _Phase, recipe: Recipe, hooks: Hooks) -> int:
    """Put a phase back into the state of a checkpoint and return the epochs that are done."""
    state = hooks.load()
    if state is None:
        return 0
    try:
        for name, part in vars(phase).items():
            part.load_state_dict(state[name])
        if (done := state["epoch"]) in range(recipe.epochs + 1):
            return int(done)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise StoreError(f"{hooks.checkpoint}: {_FITTING}, got {type(error).__name__}: {first_line(error)}") from error
    raise StoreError(f"{hooks.checkpoint}: {_FITTING}, got the epoch {done!r}")


_FITTING = "expected a checkpoint of this network and recipe"


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Keep batch norm and biases, which have one dimension, from weight decay where asked."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.decay_norm_and_bias:
        return [{"params": parameters}]
    decayed: list[Tensor] = [p for p in parameters if p.dim() > 1]
    return [{"params": decayed}, {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}]


def _factor(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at a fractional epoch, relative to recipe.lr."""
    if epoch < recipe.warmup_epochs:
        return (epoch + 1e-3) / recipe.warmup_epochs
    return _SCHEDULES[recipe.schedule](recipe, epoch)


def _cosine(recipe: Recipe, epoch: float) -> float:
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    low = recipe.min_lr / recipe.lr
    return low + (1 - low) * (1 + math.cos(math.pi * min(done, 1))) / 2


_SCHEDULES: dict[str, Callable[[Recipe, float], float]] = {
    "constant": lambda recipe, epoch: 1.0,
    "step": lambda recipe, epoch: recipe.gamma ** sum(epoch >= m * recipe.epochs for m in recipe.milestones),
    "cosine": _cosine,
}


def _uncompiled(kind: type[T]) -> type[T]:
    """Return an optimizer of PyTorch without the hooks of its compiler, which takes a second to import."""
    methods = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: unwrap(getattr(kind, name)) for name in methods}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(unwrap(kind.step))})


_OPTIMIZERS: dict[str, Callable[[Any, Recipe], Optimizer]] = {
    "sgd": lambda groups, r: _uncompiled(torch.optim.SGD)(
        groups, lr=r.lr, momentum=r.momentum, nesterov=r.nesterov, weight_decay=r.weight_decay
    ),
    "adam": lambda groups, r: _uncompiled(torch.optim.Adam)(groups, lr=r.lr, weight_decay=r.weight_decay),
    "adamw": lambda groups, r: _uncompiled(torch.optim.AdamW)(groups, lr=r.lr, weight_decay=r.weight_decay),
}
