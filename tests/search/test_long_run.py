"""Two hundred growth steps in one experiment: what is kept, and what is held open, does not grow with them.

Run with `pytest -m slow tests/search/test_long_run.py`.
"""

import gc
import os

import pytest

from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from tests import small_task
from tests.usage import handles, resident, tensors

STEPS = 200


@pytest.mark.slow
def test_two_hundred_steps_are_bounded(tmp_path, capsys):
    path = small_task.write_long(tmp_path, steps=STEPS)
    store, seen = tmp_path / "s", []
    for parameters, metrics in run(read_experiment(path), Store(str(store))):
        assert metrics is not None
        if parameters["step"] % 20 == 0:
            gc.collect()
            used = round(resident(os.getpid()), 1), handles(os.getpid()), tensors(store)
            seen.append((parameters["step"], metrics["params"], *used))
    with capsys.disabled():
        print("", "step params MiB handles bytes", *seen, sep="\n")
    assert parameters["step"] == STEPS
    assert len(list(store.rglob("weights.safetensors"))) == 1
    _, params, memory, opened, size = zip(*seen, strict=True)
    assert opened[-1] == opened[1]
    assert size[-1] < 40 * params[-1] + 100_000  # of one network: weights, spectra
    # oneDNN keeps up to 1,024 kernels, one for every shape that it has met.
    assert memory[-1] - memory[1] < 150
