"""Searching: tuners of NNI propose widths."""

from __future__ import annotations

import math
from collections.abc import Iterator

from growth_ways.bench import Bench
from growth_ways.schedules import phase
from growth_ways.settings import Row
from growth_ways.widths import even


def searched(bench: Bench) -> Iterator[Row]:
    """Train what a tuner of NNI proposes, as the reference has trained its networks, until everything is spent.

    Widths reach from the seed's to what the largest size would have if it were even, and half as much again. What is
    larger than the largest size is not trained; the tuner is told that its accuracy is 0.
    """
    from nni.algorithms.hpo.random_tuner import RandomTuner
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    low, high = bench.graph(bench.build(bench.work.widths)).widths, even(bench, bench.limits[-1])
    tuner = {"random": RandomTuner, "tpe": TpeTuner}[bench.method.tuner](seed=bench.run.seed)
    tuner.update_search_space(
        {name: {"_type": "quniform", "_value": [low[name], math.ceil(1.5 * high[name]), 1]} for name in low}
    )
    number = 0
    while bench.spent < bench.total:
        proposed = tuner.generate_parameters(number)
        model = bench.build({name: int(width) for name, width in proposed.items()})
        accuracy = 0.0
        params = sum(parameter.numel() for parameter in model.parameters())
        if params <= bench.limits[-1]:
            size = next(size for size, limit in enumerate(bench.limits) if params <= limit)
            graph = bench.graph(model)
            row = phase(bench, model, graph, size, bench.own_epochs(graph)).row
            accuracy = row.validation
            yield row
        tuner.receive_trial_result(number, proposed, accuracy)
        number += 1
