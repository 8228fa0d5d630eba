"""How many samples an example run was about: costs are per sample.

No tensor says which of its dimensions counts samples. What goes in and what comes out say it together: a size that both
begin with, or the length of a list, such as one of images of several sizes. Layers say where they take a vector, an
image or a sequence alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from nni_s3d.growth.modules import tensors


class SampleSizes:
    """What layers take for a sample, and how many there are."""

    def __init__(self) -> None:
        self._alone: set[int] = set()  # the first sizes of what was taken for one sample

    def note_alone(self, input: Tensor) -> None:
        """Note that a layer takes its input for one sample."""
        self._alone.add(input.shape[0])

    def count(self, inputs: object, outputs: object) -> int:
        """Return the number of samples of a run; 1 where inputs (as for `trace`) and outputs have none in common."""
        results = [x for x in tensors(outputs) if x.dim()]
        arguments = (
            inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else [inputs]
        )
        for argument in arguments:
            if isinstance(argument, (tuple, list)) and _are_samples(argument, outputs, results):
                return len(argument)
        sizes = [x.shape[0] for x in tensors(inputs) if x.dim() and x.shape[0] not in (0, *self._alone)]
        if not results:  # a loss
            return next(iter(sizes), 1)
        for has in (_has_entries, _has_steps, _has_rows):
            for size in sizes:
                if any(has(result, size) for result in results):
                    return size
        return 1


def _are_samples(items: Sequence[object], outputs: object, results: list[Tensor]) -> bool:
    """Whether the tensors of a list are a sample each, not the parts of one batch."""
    given = [x for x in items if isinstance(x, Tensor)]
    if not given or len(given) < len(items):
        return False
    first = {x.shape[0] if x.dim() else None for x in (*given, *results)}
    if results and len(first) == 1:  # everything is a batch
        return False
    listed = isinstance(outputs, (tuple, list)) and len(outputs) == len(items)
    return listed or any(x.shape[0] == len(items) for x in results)


def _has_entries(result: Tensor, samples: int) -> bool:
    return result.shape[0] == samples


def _has_steps(result: Tensor, samples: int) -> bool:
    """Whether the samples lie behind the steps of sequences."""
    return result.dim() > 2 and result.shape[1] == samples


def _has_rows(result: Tensor, samples: int) -> bool:
    """Whether there are several rows for each sample."""
    return result.dim() > 1 and result.shape[0] > 0 and result.shape[0] % samples == 0
