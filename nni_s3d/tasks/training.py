"""The parametric phase: train the weights of a fixed network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from tqdm import tqdm

from nni_s3d.errors import DivergenceError, StoreError, first_line
from nni_s3d.growth.modules import evaluation_mode
from nni_s3d.growth.seeds import seed_for
from nni_s3d.tasks import ranks
from nni_s3d.tasks.data import Loader
from nni_s3d.tasks.optimizers import make_optimizer
from nni_s3d.tasks.recipe import Recipe, rate_factor
from nni_s3d.tasks.whole_batch_norm import whole_batch_norms

_MANY_CLASSES = 100  # from which on the top-5 accuracy is told


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on one set."""

    accuracy: float
    loss: float
    top5: float | None = None  # accuracy if the five best guesses count, of 100 classes or more


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to know of, or keep from, a running phase."""

    load: Callable[[], dict[str, Any] | None] = lambda: None  # the last checkpoint, if there is one
    save: Callable[[dict[str, Any]], None] = lambda state: None  # called after every epoch
    before_decay: Callable[[dict[str, Any]], None] = lambda state: None  # when the rate of "wsd" begins to fall
    progress: Callable[[int, int], None] = lambda epoch, epochs: None  # after every epoch: how many are done
    penalty: Callable[[], Tensor | float] = lambda: 0.0  # added to the loss, such as a regulariser; in one process only
    checkpoint: str = "checkpoint"  # what an error calls it


def train(
    model: nn.Module,
    loader: Loader,
    recipe: Recipe,
    seed: int = 0,
    hooks: Hooks | None = None,
    title: str = "train",
    optimizer_state: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Train a model in place, in its own precision, and return the optimizer as it is at the end.

    Every epoch's randomness follows from (seed, epoch) alone, so a phase that goes on from a checkpoint ends with the
    same weights as one that was never interrupted. A progress bar is shown when standard error is a terminal.

    Where torchrun has started several processes, all of them call this, each takes its share of every batch, and the
    gradients, with the statistics of batch norms, are those of whole batches: up to rounding, and the draws of dropout,
    the result is that of one process. Weights, optimizer and checkpoint are those of the first process.

    Args:
        model: the network.
        loader: of the training set.
        recipe: how to train.
        seed: of dropout.
        hooks: what the caller wants to know or keep.
        title: of the progress bar.
        optimizer_state: the state dict that the optimizer begins with, such as that of a split; its settings, the
            learning rate among them, are those of the recipe.

    Raises:
        StoreError: the checkpoint is one of another network or recipe.
        DivergenceError: a weight is infinite or NaN after an epoch.
    """
    hooks = hooks or Hooks()
    for parameter in (p for p in model.parameters() if p.dim() == 4):
        parameter.data = parameter.data.contiguous(memory_format=recipe.memory_format)
    optimizer = make_optimizer(model, recipe)
    if optimizer_state is not None:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": optimizer_state["state"]})
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(recipe, step / len(loader)))
    device = next(model.parameters()).device
    amp = recipe.amp and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=amp)
    phase = _Phase(model, optimizer, scheduler, scaler)
    first = _restore(phase, recipe, hooks.load, hooks.checkpoint)
    several = ranks.world_size() > 1
    if several:
        given = ranks.from_first({"epoch": first} | phase.state())
        first = _restore(phase, recipe, lambda: given, "first process")
        loader = replace(loader, share=(ranks.rank(), ranks.world_size()))
    forward = DistributedDataParallel(model) if several else model
    model.train()
    hidden = True if ranks.rank() else None
    bar = tqdm(total=recipe.epochs, initial=first, desc=title, unit="epoch", disable=hidden, leave=False)
    with bar, whole_batch_norms(model):
        for epoch in range(first, recipe.epochs):
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed_for(seed, epoch) + ranks.rank())  # dropout
                loss = _epoch(phase, forward, loader, recipe, epoch, hooks)
            _check_finite(model, title, epoch + 1)
            hooks.save({"epoch": epoch + 1} | phase.state())
            hooks.progress(epoch + 1, recipe.epochs)
            bar.set_postfix(loss=f"{loss:.3f}")
            bar.update()
    return optimizer


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader) -> Evaluation:
    """Return accuracy and mean cross entropy over a set, in evaluation mode."""
    right, among_five, loss, many = 0.0, 0.0, 0.0, False
    with evaluation_mode(model):
        for inputs, targets in loader:
            outputs = model(inputs)
            right += float((outputs.argmax(dim=1) == targets).sum())
            loss += float(F.cross_entropy(outputs, targets, reduction="sum"))
            if many := outputs.shape[1] >= _MANY_CLASSES:
                among_five += float((outputs.topk(5).indices == targets[:, None]).sum())
    count = len(loader.images)
    return Evaluation(right / count, loss / count, among_five / count if many else None)


@dataclass(frozen=True)
class _Phase:
    """Everything that changes while a network is trained, by the names that its checkpoint uses."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler

    def state(self) -> dict[str, Any]:
        """Return the state of each."""
        return {name: part.state_dict() for name, part in vars(self).items()}


def _check_finite(model: nn.Module, title: str, epoch: int) -> None:
    """Stop before the weights of a network that has diverged are kept."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            expected = "expected training to converge; a lower lr or a longer warm-up may help"
            raise DivergenceError(f"{title}: {expected}, got infinity or NaN in {name} after epoch {epoch}")


def _epoch(phase: _Phase, forward: nn.Module, loader: Loader, recipe: Recipe, epoch: int, hooks: Hooks) -> float:
    """Train for one epoch and return the loss of its last batch."""
    loss = torch.zeros(())
    stable = recipe.stable_steps(recipe.epochs * len(loader)) if recipe.schedule == "wsd" else 0
    for number, (inputs, targets) in enumerate(loader.epoch(epoch)):
        inputs = inputs.contiguous(memory_format=recipe.memory_format)
        phase.optimizer.zero_grad()
        with torch.autocast(inputs.device.type, enabled=phase.scaler.is_enabled()):
            loss = F.cross_entropy(forward(inputs), targets, label_smoothing=recipe.label_smoothing)
            loss = loss * loader.weight(number, len(targets)) + ranks.world_size() * hooks.penalty()  # of one of them
        phase.scaler.scale(loss).backward()
        phase.scaler.step(phase.optimizer)
        phase.scaler.update()
        phase.scheduler.step()
        if phase.scheduler.last_epoch == stable:  # which counts steps
            hooks.before_decay(phase.state())
    return loss.item()


def _restore(phase: _Phase, recipe: Recipe, load: Callable[[], dict[str, Any] | None], where: str) -> int:
    """Put a phase back into the state of a checkpoint and return the epochs that are done."""
    state = load()
    if state is None:
        return 0
    try:
        for name, part in vars(phase).items():
            part.load_state_dict(state[name])
        if (done := state["epoch"]) in range(recipe.epochs + 1):
            return int(done)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise StoreError(f"{where}: {_FITTING}, got {type(error).__name__}: {first_line(error)}") from error
    raise StoreError(f"{where}: {_FITTING}, got the epoch {done!r}")


_FITTING = "expected a checkpoint of this network and recipe"
