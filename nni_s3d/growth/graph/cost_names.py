"""The names of the costs that `cost.py` counts, for files that must not import torch."""

COSTS = ("params", "macs", "flops", "neurons")
