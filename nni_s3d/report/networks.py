"""The finished networks of an experiment of NNI's, or of a store, by the names of their trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nni_s3d.errors import ReportError, StoreError
from nni_s3d.report.nni_database import read_config, read_trials
from nni_s3d.report.nni_experiments import NNIExperiment, find_experiment
from nni_s3d.search.store import Store, store_url
from nni_s3d.search.stored import StoredNetwork, identity, stored_networks


@dataclass(frozen=True)
class TrialNetwork:
    """A finished network, by the name that its experiment has for it."""

    experiment: str  # NNI's id, or the path or URL of a store
    trial: str  # NNI's id, or the folder in the store
    network: StoredNetwork


def networks_of(name: str, store: str | None = None, experiments_dir: Path | None = None) -> list[TrialNetwork]:
    """Return the finished networks of an experiment.

    Args:
        name: the id of an NNI experiment, or the path or URL of a store.
        store: where the experiment keeps its artefacts, if that is not where NNI_S3D_STORE says or among its files.
        experiments_dir: where NNI keeps its list (default: ~/nni-experiments).

    Raises:
        ReportError: there is no such experiment, its store is gone, or none of its trials has finished.
    """
    if is_store(name):
        found = [TrialNetwork(name, network.key, network) for network in _networks(name, name)]
    else:
        experiment = find_experiment(name, experiments_dir)
        found = _of_trials(experiment, _networks(store or store_url(experiment.folder), f"experiment {name}"))
    if not found:
        raise ReportError(f"{name}: expected a finished trial, found none")
    return found


def code_folder(name: str, experiments_dir: Path | None = None) -> Path | None:
    """Return where an NNI experiment has the code of its trials, if it says so."""
    code = None if is_store(name) else read_config(find_experiment(name, experiments_dir)).get("trialCodeDirectory")
    return Path(code) if isinstance(code, str) else None


def is_store(name: str) -> bool:
    """Whether this is the path or URL of a store, and no id of NNI's."""
    return "/" in name or Path(name).is_dir()


def _networks(url: str, of: str) -> list[StoredNetwork]:
    try:
        return stored_networks(Store(url))
    except StoreError as error:
        raise ReportError(f"{of}: expected its artefacts, got: {error}") from error


def _of_trials(experiment: NNIExperiment, networks: Sequence[StoredNetwork]) -> list[TrialNetwork]:
    """Return the network of every trial that has succeeded; several trials may have been given the same widths."""
    by_parameters = {identity(network.parameters): network for network in networks}
    made = []
    for trial in read_trials(experiment):
        network = by_parameters.get(identity(trial.sample)) if trial.status == "SUCCEEDED" else None
        if network is not None:
            made.append(TrialNetwork(experiment.id, trial.id, network))
    return made
