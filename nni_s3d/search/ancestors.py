"""The steps before a trial, of which it needs the outcomes and the last network: what is lost of them is made again.

The trial of a step follows from the step before it, and that of a seed network from the search space. So a store in
which anything is missing or damaged mends itself, as far back as need be, and ends with the same content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nni_s3d.errors import StoreError
from nni_s3d.search.branches import Branch, inherited, parent_of
from nni_s3d.search.lineage import outcome_path, settings_path
from nni_s3d.search.spec import Spec
from nni_s3d.search.store import Store
from nni_s3d.tasks.search_space import Space

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ancestors:
    """What came of the steps before, and how to run them again.

    Attributes:
        store: that all of them share.
        space: in which they are.
        run: runs the trial of some parameters and leaves its outcome; if its network and all else is there, it returns
            at once.
    """

    store: Store
    space: Space
    run: Callable[[dict[str, Any]], object]

    def outcome(self, label: str, step: int) -> Mapping[str, Any]:
        """Return what came of a step: the key of its network and the parameters of the next step, or why it has none.

        Raises:
            S3DError: it is lost, and cannot be made again.
        """
        if (found := self._found(label, step)) is not None:
            return found
        if (branch := self._branch(label, step)) is not None:
            outcome = inherited(self.outcome(branch.parent, step), branch, step)
            self.store.write_json(outcome_path(label, step), outcome)
            return outcome
        self._run_again(label, step, "its outcome is lost")
        made = self.store.read_json(outcome_path(label, step), "key")
        assert made is not None
        return made

    def restore_network(self, label: str, step: int) -> None:
        """Make sure that the network of a step and its plan are there, and make them again if they are not."""
        first = step
        while first > 0 and not self._has_weights(label, first):
            first -= 1
        for number in range(first, step + 1):  # forward, since each would call for the one before
            self._restore(label, number)

    def _has_weights(self, label: str, step: int) -> bool:
        outcome = self._found(label, step)
        return outcome is not None and self.store.exists(f"{outcome['key']}/weights.safetensors")

    def _restore(self, label: str, step: int) -> None:
        if (branch := self._branch(label, step)) is not None:
            self._restore(branch.parent, step)
        else:
            self._run_again(label, step, "its network is needed")

    def _branch(self, label: str, step: int) -> Branch | None:
        """Return where a lineage has branched if a step is one of its past, which it shares with its parent."""
        branch = parent_of(label)
        past = branch is not None and step < branch.step and self.store.exists(settings_path(branch.parent))
        return branch if past else None

    def _found(self, label: str, step: int) -> dict[str, Any] | None:
        outcome = self.store.read_if_whole(outcome_path(label, step))
        return outcome if outcome is not None and isinstance(outcome.get("key"), str) else None

    def _run_again(self, label: str, step: int, reason: str) -> None:
        _logger.warning("step %d of lineage %s is looked at again: %s", step, label, reason)
        self.run(self._parameters(label, step))

    def _parameters(self, label: str, step: int) -> dict[str, Any]:
        """Return the parameters of the trial of a step."""
        if step == 0:
            return Spec(dict(self.space.low), lineage=label).to_parameters()
        following = self.outcome(label, step - 1).get("next")
        if not isinstance(following, dict):
            where = self.store.url_of(outcome_path(label, step - 1))
            raise StoreError(f"{where}: expected the parameters of step {step}, got {following!r}")
        return {**following, "step": step, "lineage": label}
