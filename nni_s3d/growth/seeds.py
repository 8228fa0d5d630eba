"""Seeds that follow from other numbers, such as the seed of an epoch from that of a run."""

from __future__ import annotations

import numpy as np


def seed_for(*numbers: int) -> int:
    """Return the seed for these numbers, below 2**63: the same on every machine, and unlike that for any others.

    Args:
        *numbers: whole numbers >= 0, say the seed of a run and the number of an epoch.

    Example:
        >>> seed_for(0, 1) == seed_for(0, 1), seed_for(0, 1) == seed_for(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
