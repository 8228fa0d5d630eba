"""Networks that are trained once and kept: the next call loads them, or goes on from the last epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from torch import Tensor, nn

from nni_s3d.search.store import Store
from nni_s3d.search.tensor_files import read_checkpoint, read_tensors, write_checkpoint, write_tensors
from nni_s3d.tasks.data import Loader
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.training import Hooks, train


def trained(
    store: Store,
    name: str,
    model: nn.Module,
    loader: Loader,
    recipe: Recipe,
    seed: int = 0,
    penalty: Callable[[], Tensor | float] = lambda: 0.0,
    begin: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Train a network in place, or load what an earlier call under the same name has left in the store, a local folder.

    A process that wants what another one is training waits for it. `begin` is called if there is something to train.
    """
    path, checkpoint = f"{name}/weights.safetensors", f"{name}/checkpoint.pt"
    Path(store.url).mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store.url}/{name}.lock"):
        weights = read_tensors(store, path)
        if weights is not None:
            model.load_state_dict(weights)
            return model
        hooks = Hooks(
            load=lambda: read_checkpoint(store, checkpoint),
            save=lambda state: write_checkpoint(store, checkpoint, state),
            checkpoint=store.url_of(checkpoint),
            penalty=penalty,
        )
        begin()
        train(model, loader, recipe, seed, hooks, name)
        write_tensors(store, path, model.state_dict())
        store.remove(checkpoint)
    return model
