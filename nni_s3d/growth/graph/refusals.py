"""Channels that cannot be split: what they have met, where, and what the author of the model could write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

OUTPUT = "it is an output of the network"
NO_RULE = "register it if it works channel by channel, or put a linear layer or a 1x1 convolution before it"


class Refusals(list[tuple[Tensor, str]]):
    """Labels of channels, each with the reason; of several reasons for a channel the first counts.

    Attributes:
        spot: says where in the code of the model the function is called that is being followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spot: Callable[[], object] = str

    def add(self, labels: Iterable[Tensor | None], met: str, instead: str) -> None:
        """Refuse channels.

        Args:
            labels: of tensors, None where there are none.
            met: what they have met; the reason says where.
            instead: what could be written instead; empty if there is nothing.
        """
        refused = [label for label in labels if label is not None]
        if refused:
            reason = self.reason(met, instead)
            self.extend((label, reason) for label in refused)

    def reason(self, met: str, instead: str) -> str:
        """Return the reason that is given at this place; arguments as for `add`."""
        return f"{met}{self.spot()}" + (f"; {instead}" if instead else "")
