import random

import numpy as np
import pytest

from nni_s3d.errors import ConfigError
from nni_s3d.plugin.tuners import Proposer
from tests.small_task import SPACE

RUNS = {
    "Random": {},
    "TPE": {"optimize_mode": "maximize"},
    "Evolution": {"optimize_mode": "maximize", "population_size": 5},
    "GridSearch": {},
}


def proposals(name, seed=0, number=30):  # TPE draws the first twenty at random
    proposer, found = Proposer(name, RUNS[name], SPACE, seed), []
    for _ in range(number):
        found.append(proposer.propose())
        random.random(), np.random.rand()  # noqa: NPY002  (a trial draws, too)
        proposer.tell(found[-1], {"default": found[-1]["pw1"] / 10, "loss": 1.0})
    return found


@pytest.mark.parametrize("name", RUNS)
def test_it_proposes_widths_of_the_space(name):
    for parameters in proposals(name):
        assert list(parameters) == list(SPACE)
        assert all(type(width) in (int, float) and 3 <= width <= 12 for width in parameters.values())


@pytest.mark.parametrize("name", RUNS)
def test_the_seed_decides_and_the_process_keeps_its_own_numbers(name):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    first = proposals(name)
    after = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(4)
    np.random.seed(4)  # noqa: NPY002
    assert proposals(name) == first
    assert name == "GridSearch" or proposals(name, seed=1) != first
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    for _ in range(30):
        random.random(), np.random.rand()  # noqa: NPY002
    assert (random.random(), np.random.rand()) == after  # noqa: NPY002


def test_a_grid_comes_to_its_end():
    proposer = Proposer("GridSearch", {}, {"conv0": {"_type": "choice", "_value": [3, 4]}}, 0)
    found = []
    while (parameters := proposer.propose()) is not None:
        found.append(parameters["conv0"])
        proposer.tell(parameters, {"default": 0.5})
    assert sorted(found) == [3, 4]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Nobody", {}, "tuner Nobody: expected the name of a tuner of NNI's, or of a class"),
        ("no.such.Tuner", {}, "tuner no.such.Tuner: expected one that runs here, got ModuleNotFoundError"),
        ("Hyperband", {}, "tuner Hyperband: expected a tuner, which proposes networks one by one, got an advisor"),
        ("Medianstop", {}, "tuner Medianstop: expected a tuner, .*, got an assessor"),
        ("TPE", {"flavour": 1}, "tuner TPE: expected one that runs here, got TypeError: .*flavour"),
        ("Batch", {}, "tuner Batch: expected one that runs here, got RuntimeError"),
    ],
)
def test_what_does_not_run_is_named(name, arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Proposer(name, arguments, SPACE, 0)
    assert "\n" not in str(caught.value)


def test_a_tuner_that_fails_later_is_named():
    proposer = Proposer("GP", {"optimize_mode": "maximize"}, SPACE, 0)
    proposer._tuner.generate_parameters = lambda number: 1 / 0
    with pytest.raises(ConfigError, match="tuner GP: expected parameters, got ZeroDivisionError"):
        proposer.propose()
