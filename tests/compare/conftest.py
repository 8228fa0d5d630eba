import pandas as pd
import pytest


@pytest.fixture
def rows():
    """Two strategies on two seeds: one that grows and one that draws, which is worse."""
    made = []
    for strategy, lift in (("grow", 0.1), ("draw", 0.0)):
        for seed in (0, 1):
            for trial, (params, accuracy) in enumerate([(100, 0.4), (200, 0.6), (400, 0.7)]):
                cost = {"params": params, "macs": 40 * params, "flops": 90 * params, "train_macs": 1000 * params}
                reached = accuracy + lift + 0.01 * seed
                row = {"strategy": strategy, "seed": seed, "trial": trial, "accuracy": reached}
                made.append(row | {"test_accuracy": reached - 0.05} | cost | {"search_macs": 0, "widths": "{}"})
    frame = pd.DataFrame(made)
    frame["search_macs"] = frame.groupby(["strategy", "seed"])["train_macs"].cumsum()
    return frame
