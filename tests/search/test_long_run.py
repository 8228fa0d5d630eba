"""Two hundred growth steps in one experiment: what is kept, and what is held open, does not grow with them."""

import gc
import json
import os
from pathlib import Path

import pytest

from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from tests import small_task

STEPS = 200
TINY = {
    "data": {"name": "digits", "validation": 0.25, "samples": 60},
    "training": {"epochs": 1, "batch_size": 45, "lr": 0.01},
    "curvature": {"samples": 20, "batch_size": 20},
}


def resident() -> float:
    """Return the memory of this process that is in use, in MiB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def tensors(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in (".safetensors", ".pt"))


@pytest.mark.slow
def test_two_hundred_steps_are_bounded(tmp_path, capsys):
    """One neuron more in a step, and as many epochs in each: so steps cost much the same."""
    growth = {"policy": {"name": "top_k", "k": 1}, "c": 3.0, "phase_budget": "epochs", "epochs": 1}
    path = small_task.write(tmp_path, TINY, steps=STEPS, keep="newest", **growth)
    space = {name: {"_type": "quniform", "_value": [3, 300, 1]} for name in small_task.NAMES}
    (tmp_path / "space.json").write_text(json.dumps(space))
    store, seen = tmp_path / "s", []
    for parameters, metrics in run(read_experiment(path), Store(str(store))):
        assert metrics is not None
        if parameters["step"] % 20 == 0:
            handles = len(os.listdir("/proc/self/fd"))
            seen.append((parameters["step"], metrics["params"], round(resident(), 1), handles, tensors(store)))
    with capsys.disabled():
        print("", "step params MiB handles bytes", *seen, sep="\n")
    assert parameters["step"] == STEPS
    assert len(list(store.rglob("weights.safetensors"))) == 1
    _, params, memory, handles, size = zip(*seen, strict=True)
    assert handles[-1] == handles[1]
    assert size[-1] < 40 * params[-1] + 100_000  # of one network: weights, spectra
    # oneDNN keeps up to 1,024 kernels, one for every shape that it has met.
    assert memory[-1] - memory[1] < 150
