"""A growth plan: which neurons are split into how many copies, where the copies go, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nni_s3d.errors import ModelError

_TENSORS = ("copies", "weights", "displacements")
_NUMBERS = ("gain", "params", "macs", "flops", "held_out_gain", "held_out_error", "seed", "relative")


@dataclass(frozen=True, eq=False)
class GrowthPlan:
    """What `split` carries out. Dictionaries by group hold every splittable group, in the order of the graph."""

    copies: dict[str, Tensor]  # (width,) int64, 1 = not split
    weights: dict[str, Tensor]  # (new width,) output weights w_j, the copies of a neuron side by side
    displacements: Mapping[str, Tensor]  # (new width, d) delta_j; a group that does not move is left out
    gain: float  # <= 0: the predicted change of the loss is epsilon^2 / 2 * gain; fits the noise of its samples, too
    params: int  # exact, of the grown network
    macs: int
    flops: int
    held_out_gain: float | None = None  # the gain on samples that the directions do not come from; None without folds
    held_out_error: float | None = None  # its standard error
    seed: int | None = None  # of what new neurons read, if the second copies are new neurons
    relative: bool = False  # displacements, gain and epsilon are in units of each neuron's |theta_i|

    @property
    def widths(self) -> dict[str, int]:
        """Width of every splittable group after the split."""
        return {name: int(copies.sum()) for name, copies in self.copies.items()}

    @property
    def neurons(self) -> int:
        """How many neurons are split."""
        return sum(int((copies > 1).sum()) for copies in self.copies.values())

    def to_json(self) -> dict[str, object]:
        """Return what a person wants to read, as plain JSON: no weights, no displacements."""
        copies = {name: copies.tolist() for name, copies in self.copies.items()}
        return {"copies": copies, "widths": self.widths} | {name: getattr(self, name) for name in _NUMBERS}

    def to_tensors(self) -> dict[str, Tensor]:
        """Return everything that is not in `to_json`, for a safetensors file."""
        return {f"{field}/{name}": tensor for field in _TENSORS for name, tensor in getattr(self, field).items()}

    @classmethod
    def load(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GrowthPlan:
        """Put a plan together again from what `to_json` and `to_tensors` returned.

        Raises:
            ModelError: they are something else, or of a version that did not say in which unit epsilon is.
        """
        if "relative" not in content:
            expected = "expected one that says in which unit epsilon is measured"
            raise ModelError(f"plan: {expected}, got one of an older version; start again with a new store")
        fields: dict[str, Any] = {field: {} for field in _TENSORS}
        try:
            for key, tensor in tensors.items():
                field, _, name = key.partition("/")
                fields[field][name] = tensor
            fields["copies"] = {name: fields["copies"][name] for name in content["copies"]}
            plan = cls(**fields, **{name: content[name] for name in _NUMBERS})
            fits = plan.to_json() == dict(content) and all(
                len(plan.weights[name]) == width == len(plan.displacements.get(name, plan.weights[name]))
                for name, width in plan.widths.items()
            )
        except (LookupError, TypeError) as error:
            shown = f"{type(error).__name__}: {error}"
            raise ModelError(f"plan: expected what to_json and to_tensors return, got {shown}") from error
        if not fits:
            raise ModelError("plan: expected JSON and tensors of one plan, got those of two; load them together")
        return plan


def second_copies(copies: Tensor) -> Tensor:
    """Return which of the copies of one group (new width,) bool are second ones.

    Args:
        copies: (width,) of 1 and 2.
    """
    neuron = torch.arange(len(copies)).repeat_interleave(copies)
    second = torch.zeros(len(neuron), dtype=torch.bool)
    second[1:] = neuron[1:] == neuron[:-1]
    return second
