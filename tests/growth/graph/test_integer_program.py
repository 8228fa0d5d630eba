"""The integer solver answers as scipy's does, prints nothing, and never takes another thread's output away."""

import os
import threading

import numpy as np
import pytest
from scipy import optimize
from tqdm import tqdm

from nni_s3d.growth.graph.integer_program import milp
from tests.alone import alone  # noqa: F401

KNAPSACK = {"c": [-3.0, -2.0, -2.0], "integrality": [1, 1, 1], "bounds": (0, 1)}


def printing(*_, **__):
    """Stand for a solver of HiGHS 1.12, which writes to file descriptor 1 whatever `disp` says."""
    os.write(1, b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n")
    return "solved"


def failing(*_, **__):
    raise ValueError("no such option")


def test_the_answer_is_scipys():
    constraints = optimize.LinearConstraint([[3.0, 2.0, 2.0]], ub=4.0)
    assert np.array_equal(milp(**KNAPSACK, constraints=constraints).x, [0, 1, 1])


def test_nothing_is_printed(alone, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setattr(optimize, "milp", printing)
    print("before")
    assert milp() == "solved"
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"


def test_nothing_is_printed_after_a_progress_bar(alone, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setattr(optimize, "milp", printing)
    for _ in tqdm(range(2)):
        pass
    assert threading.active_count() > 1
    milp()
    assert capfd.readouterr().out == ""


def test_output_comes_back_after_an_error(monkeypatch, capfd):
    monkeypatch.setattr(optimize, "milp", failing)
    with pytest.raises(ValueError, match="no such option"):
        milp()
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_what_other_threads_print_meanwhile_is_never_lost(monkeypatch, capfd):
    """They wait until the solver runs, and the solver until they have printed."""
    running, printed = threading.Event(), threading.Event()

    def slow(*_, **__):
        running.set()
        assert printed.wait(10)

    def other():
        assert running.wait(10)
        os.write(1, b"another thread\n")
        printed.set()

    monkeypatch.setattr(optimize, "milp", slow)
    thread = threading.Thread(target=other)
    thread.start()
    milp()
    thread.join()
    assert capfd.readouterr().out == "another thread\n"


def test_a_process_without_standard_output(monkeypatch):
    def no_descriptor(_):
        raise OSError("bad file descriptor")

    monkeypatch.setattr(os, "dup", no_descriptor)
    constraints = optimize.LinearConstraint([[1.0, 1.0, 1.0]], ub=1.0)
    assert np.array_equal(milp(**KNAPSACK, constraints=constraints).x, [1, 0, 0])
