"""What a study compares: its methods, its targets, and the scale at which it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nni_s3d.config import build, read_yaml
from nni_s3d.errors import ConfigError
from nni_s3d.tasks.task import Task, read_task
from paper.files import file_name

KINDS = ("grow", "scratch", "widths", "prune", "morphnet", "amc")
TARGETS = ("own", "params", "macs", "cost")
PUBLISHED = ("accuracy", "top5", "params", "macs", "flops", "forward")  # percent, millions, and milliseconds


@dataclass(frozen=True)
class Scale:
    """How large a study is. The defaults are those of the paper."""

    seeds: list[int] = field(default_factory=lambda: [0])
    width: float = 1.0  # factor on all widths, those of the seed network and of the full one
    samples: int | None = None  # of the training set
    epochs: int | None = None  # of a phase
    batch_size: int | None = None  # in training
    lr: dict[str, float] = field(default_factory=dict)  # {kind of method: learning rate}, where it is another
    points: int | None = None  # of a cloud
    image_size: int | None = None  # of images from a folder
    growth: dict[str, Any] = field(default_factory=dict)  # settings of a lineage that differ from the study's
    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # {network: arguments that differ}
    curvature_samples: int | None = None  # behind a splitting matrix
    penalty: float = 1.0  # factor on the penalties on batch norms, which fewer steps of training need larger
    episodes: int | None = None  # of AMC


@dataclass(frozen=True)
class Method:
    """One way to a network, and what it is to be like.

    Its targets: "own" is the method as it is published, "params" and "macs" a network with as many as that of the
    reference, and "cost" one with as many MACs that has taken as much training in all.
    """

    kind: str
    targets: list[str] = field(default_factory=lambda: ["own"])
    settings: dict[str, Any] = field(default_factory=dict)  # of "grow": what differs from the study's `growth`
    training: dict[str, Any] = field(default_factory=dict)  # what differs from that of the task
    importance: str = "l1"  # of "prune": "l1" in every layer alike, or "batch_norm" in the whole network
    floor: float = 0.0  # of "prune" by batch norms: fraction of every layer that stays in any case
    penalty: float = 0.0  # of "prune" and "morphnet": on the scales of batch norms during training
    episodes: int = 400  # of "amc": networks that its agent tries
    share: float = 1.0  # with the target "own": of what the full network costs
    share_of: str = "params"  # or "macs"
    factor: float = 1.0  # of "widths", with the target "own": on the widths of the full network
    task: str | None = None  # path of another task.yml, such as that of another network, from the study's file
    full: list[int] | None = None  # and the widths of its full network
    drawn: bool = True  # in the first panels of the figure
    published: list[dict[str, float]] = field(default_factory=list)  # the paper's numbers for the last networks

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        for target in self.targets:
            if target not in TARGETS:
                raise ConfigError(f"targets: expected some of {', '.join(TARGETS)}, got {target!r}")
        if self.kind == "grow" and "cost" in self.targets:
            raise ConfigError("targets: expected macs instead of cost for what grows: its training costs as much, too")
        if self.share_of not in ("params", "macs"):
            raise ConfigError(f"share_of: expected params or macs, got {self.share_of!r}")
        for name in (name for numbers in self.published for name in numbers):
            if name not in PUBLISHED:
                raise ConfigError(f"published: expected some of {', '.join(PUBLISHED)}, got {name!r}")

    def differing(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults and change what comes out."""
        unset = asdict(Method(self.kind))
        shown = {"targets", "drawn", "published"}
        differing = {name: value for name, value in asdict(self).items() if name not in shown and value != unset[name]}
        return {"kind": self.kind} | differing


@dataclass(frozen=True)
class Study:
    """The content of a study's YAML file."""

    task: str  # path of the task.yml, from the file
    full: list[int]  # widths of the full network
    growth: dict[str, Any]  # settings of a lineage that all methods of kind "grow" share
    reference: str  # the method, of kind "grow", whose networks the others are compared with
    methods: dict[str, Method]
    scales: dict[str, Scale]
    path: Path = field(default=Path(), metadata={"setting": False})

    def __post_init__(self) -> None:
        reference = self.methods.get(self.reference)
        if reference is None or reference.kind != "grow" or "own" not in reference.targets:
            expected = "a method of kind grow with the target own"
            raise ConfigError(f"reference: expected {expected}, got {self.reference!r}")

    def is_first(self, name: str) -> bool:
        """Whether other methods build on what this one leaves: the reference, or the full network."""
        method = self.methods[name]
        return name == self.reference or (
            method.kind == "widths" and method.factor == 1 and not (method.task or method.training)
        )

    def scale(self, name: str) -> Scale:
        """Return a scale by its name."""
        if name not in self.scales:
            raise ConfigError(f"scale: expected one of {', '.join(self.scales)}, got {name!r}")
        return self.scales[name]

    def jobs(self, methods: Collection[str] | None, targets: Collection[str], seeds: Iterable[int]) -> list[Job]:
        """Return the jobs of some methods, or of all, with those of the reference, which the others need."""
        for name in methods or ():
            if name not in self.methods:
                raise ConfigError(f"methods: expected some of {', '.join(self.methods)}, got {name!r}")
        return [
            Job(name, target, seed)
            for seed in seeds
            for name, method in self.methods.items()
            for target in method.targets
            if (target in targets and name in (methods or self.methods)) or (name, target) == (self.reference, "own")
        ]

    def scaled_task(self, scale: Scale, method: Method | None = None) -> Task:
        """Return the task of a method at a scale, but for its search space."""
        task = read_task(self.path.parent / ((method and method.task) or self.task))
        curvature, data, training = task.curvature, task.data, task.training
        if scale.curvature_samples is not None:
            curvature = replace(curvature, samples=scale.curvature_samples)
        if scale.samples is not None:
            data = replace(data, samples=scale.samples)
        if scale.points is not None:
            data = replace(data, points=scale.points)
        if scale.image_size is not None and data.folder is not None:
            data = replace(data, folder=replace(data.folder, image_size=scale.image_size))
        if scale.epochs is not None:
            training = training.lasting(scale.epochs)
        if scale.batch_size is not None:
            training = replace(training, batch_size=scale.batch_size)
        model = task.model | scale.models.get(task.model["factory"].rpartition(":")[2], {})
        return replace(task, curvature=curvature, data=data, training=training, model=model)


def read_study(path: Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: the file is missing, or a key is unknown, missing, of the wrong type or out of range.
    """
    return replace(build(Study, read_yaml(path), path), path=path)


@dataclass(frozen=True)
class Job:
    """A method on its way to one target."""

    method: str
    target: str
    seed: int

    @property
    def folder(self) -> str:
        """A name for its files."""
        return f"{file_name(self.method)}-{self.target}-{self.seed}"
