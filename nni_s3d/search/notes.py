"""What a trial leaves for its readers: what a split has promised and done, and both ends of every neuron's spectrum.

Nothing later depends on it, so a store of an older version, which has none, goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load, save

from nni_s3d.config import build
from nni_s3d.errors import ConfigError, StoreError
from nni_s3d.search.checksum import KEY, UNKNOWN
from nni_s3d.search.store import Store

if TYPE_CHECKING:  # a reader needs no PyTorch
    from torch import Tensor

    from nni_s3d.growth.selection.plan import GrowthPlan
    from nni_s3d.growth.selection.plan_from_copies import Evidence

Ends = tuple[np.ndarray, np.ndarray]  # lambda_min and lambda_max of every neuron of a group, both (width,)

_SPLIT, _SPECTRA = "split.json", "spectra.safetensors"


@dataclass(frozen=True)
class SplitNote:
    """Changes of the loss by a split: as predicted to second order, and as measured on the same samples."""

    neurons: int  # that were split
    predicted: float | None  # None where nothing is predicted, as of random splits
    held_out: float | None  # predicted on samples that the directions do not come from
    held_out_error: float | None
    before: float  # the loss
    after: float

    @classmethod
    def of(cls, plan: GrowthPlan, epsilon: float, before: float, after: float) -> SplitNote:
        """Return the note of a plan that was carried out with splits of length epsilon."""

        def change(gain: float | None) -> float | None:
            return None if gain is None else epsilon**2 / 2 * gain

        held_out = (change(plan.held_out_gain), change(plan.held_out_error))
        return cls(plan.neurons, change(plan.gain or None), *held_out, before, after)


def write_split(store: Store, key: str, note: SplitNote) -> None:
    """Leave the note of the split that a trial has begun with."""
    store.write_json(f"{key}/{_SPLIT}", asdict(note))


def read_split(store: Store, key: str) -> SplitNote | None:
    """Return the note of the split that a trial has begun with, or None if it has begun otherwise.

    Raises:
        StoreError: the file is not what this package writes.
    """
    content = store.read_json(f"{key}/{_SPLIT}")
    try:
        return None if content is None else build(SplitNote, content, store.url_of(f"{key}/{_SPLIT}"))
    except ConfigError as error:
        raise StoreError(str(error)) from error


def write_spectra(store: Store, key: str, evidence: Evidence) -> None:
    """Leave the extreme eigenvalues of all neurons, if a trial has measured any."""
    if isinstance(evidence, Mapping):
        arrays = {}
        for name, spectrum in evidence.items():
            arrays[f"{name}:min"], arrays[f"{name}:max"] = map(_array, (spectrum.lambda_min, spectrum.lambda_max))
        store.write_bytes(f"{key}/{_SPECTRA}", save(arrays, {KEY: UNKNOWN}))


def read_spectra(store: Store, key: str) -> dict[str, Ends]:
    """Return both ends of the spectra of every group, nothing where nothing was measured.

    Raises:
        StoreError: the file is not what this package writes.
    """
    path = f"{key}/{_SPECTRA}"
    content = store.read_bytes(path)
    arrays = {} if content is None else store.decode(path, content, load)
    groups = dict.fromkeys(name.rpartition(":")[0] for name in arrays)
    try:
        return {name: (arrays[f"{name}:min"], arrays[f"{name}:max"]) for name in groups}
    except KeyError as error:
        raise StoreError(f"{store.url_of(path)}: expected both ends of a spectrum, got none for {error}") from error


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().float().numpy())  # safetensors takes no strides into account
