"""The settings and data of one trial, and the names of its artefacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nni_s3d.growth.seeds import seed_for
from nni_s3d.search.branches import plan_name
from nni_s3d.search.lineage import Lineage
from nni_s3d.search.spec import Spec
from nni_s3d.search.store import Store
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import Task, digest

_NO_MATTER = ("name", "steps")  # settings of a lineage that change no network of it


@dataclass(frozen=True)
class TrialContext:
    """Everything that one trial works with."""

    task: Task
    space: Space  # of the task
    store: Store
    spec: Spec
    lineage: Lineage | None  # None for the widths of another strategy
    parent: str | None  # key of the artefacts of the step before
    report: Callable[[float], None] = lambda accuracy: None  # takes the validation accuracies on the way
    plan: str = plan_name()  # name of what the parent has left for this trial

    @property
    def seed(self) -> int:
        """Of the weights, the order of the samples, random growth and the eigensolver."""
        return self.lineage.seed if self.lineage else self.task.seed

    @property
    def seed_of_step(self) -> int:
        """Of what every step of a lineage draws anew."""
        return seed_for(self.seed, self.spec.step)

    @property
    def key(self) -> str:
        """Name of the folder of this trial's artefacts: a hash of all that determines them."""
        spec = {"widths": self.spec.widths, "step": self.spec.step, "parent": self.parent}
        settings = None
        if self.lineage is not None:
            settings = {name: value for name, value in self.lineage.to_json().items() if name not in _NO_MATTER}
            settings |= {"low": self.space.low, "high": self.space.high}
        return digest({"task": self.task.fingerprint, "spec": spec, "lineage": settings})

    @property
    def plans_ahead(self) -> bool:
        """Whether a larger network may grow from this one."""
        return self.lineage is not None and self.spec.step < self.lineage.steps

    @property
    def grows_before_decay(self) -> bool:
        """Whether growth goes on from before the learning rate falls, with the optimizer's state."""
        return self.lineage is not None and self.task.training.schedule == "wsd"

    @property
    def grown_weights(self) -> str:
        """Name of the weights that growth goes on from."""
        return "stable.safetensors" if self.grows_before_decay else "weights.safetensors"

    def path(self, name: str) -> str:
        """Return where an artefact of this trial is in the store."""
        return f"{self.key}/{name}"
