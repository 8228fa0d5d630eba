"""The finished networks of a store: what each one is, and how good. `load_network` has the networks themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_s3d.search.spec import widths_of
from nni_s3d.search.store import Store

_KEY = re.compile("[0-9a-f]{16}")
_METRICS = ("default", "params", "macs")


@dataclass(frozen=True)
class StoredNetwork:
    """One finished trial, as its folder in a store tells."""

    store: Store
    key: str  # name of the folder
    parameters: dict[str, Any]  # of the trial, see `Spec`
    metrics: dict[str, float]

    @property
    def widths(self) -> dict[str, int]:
        """Of the layers that the search space names."""
        return widths_of(self.parameters)


def stored_networks(store: Store) -> list[StoredNetwork]:
    """Return the finished networks of a store, those of a lineage in the order of their steps.

    Raises:
        StoreError: there is no such store, or a file in it is not what this package writes.
    """
    every = (stored_network(store, key) for key in filter(_KEY.fullmatch, store.folders()))
    found = [network for network in every if network is not None]
    return sorted(found, key=lambda network: (network.parameters.get("lineage") or "", network.metrics.get("step", 0)))


def stored_network(store: Store, key: str) -> StoredNetwork | None:
    """Return the network in a folder of a store, None if its trial has not finished.

    Raises:
        StoreError: a file in it is not what this package writes.
    """
    parameters = store.read_json(f"{key}/spec.json")
    metrics = store.read_json(f"{key}/metrics.json", *_METRICS)
    return None if parameters is None or metrics is None else StoredNetwork(store, key, parameters, metrics)


def identity(parameters: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what tells the parameters of one trial of an experiment from those of another."""
    widths = ((name, int(width)) for name, width in widths_of(parameters).items())
    return (parameters.get("lineage"), parameters.get("step") or 0, *sorted(widths))
