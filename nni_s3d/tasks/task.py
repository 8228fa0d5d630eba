"""A task: model, data and training recipe, the same for every strategy that is compared on it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nni_s3d.config import build, read_yaml
from nni_s3d.errors import ConfigError
from nni_s3d.tasks.data import CLOUDS, NAMES, DataSet, Folder, Loader, check_folder, load
from nni_s3d.tasks.factories import build_network, look_in
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.search_space import Space

_OF_CLOUDS = {"points": 1, "scale": 1, "shift": 0}  # settings, and the least value of each
_WHERE = ("device", "threads", "directory", "search_space")  # settings that say where a task runs or is written down


@dataclass(frozen=True)
class DataSettings:
    """The data set and how its training samples are augmented."""

    name: str
    validation: float = 0.1  # fraction of the training set that is held out
    samples: int | None = None  # use only this many training samples
    pad: int = 0  # random crops of images padded with this many pixels
    flip: bool = False  # mirror every other image
    folder: Folder | None = None  # of "imagefolder", whose training images are cropped at random
    points: int | None = None  # of every cloud; 1024 by default
    scale: float | None = None  # stretch clouds along each axis by a factor of up to this, or its inverse
    shift: float | None = None  # move clouds along each axis by up to this

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"name: expected one of {', '.join(NAMES)}, got {self.name!r}")
        if self.pad < 0:
            raise ConfigError(f"pad: expected a whole number >= 0, got {self.pad!r}")
        if not 0 < self.validation < 1:
            raise ConfigError(f"validation: expected a fraction in (0, 1), got {self.validation!r}")
        check_folder(self.name, self.folder)
        if self.folder is not None and self.pad:
            raise ConfigError(f"pad: expected 0 with {self.name}, which crops at random anyway, got {self.pad!r}")
        of_others = {"pad": 0, "flip": False} if self.name in CLOUDS else dict.fromkeys(_OF_CLOUDS)
        for setting, unset in of_others.items():
            if getattr(self, setting) != unset:
                kind = "clouds" if self.name in CLOUDS else "images"
                raise ConfigError(f"{setting}: expected no such setting for {kind}, got {getattr(self, setting)!r}")
        for setting, least in _OF_CLOUDS.items():
            if not (getattr(self, setting) is None or least <= getattr(self, setting) < math.inf):
                raise ConfigError(f"{setting}: expected a number >= {least}, got {getattr(self, setting)!r}")


@dataclass(frozen=True)
class CurvatureSettings:
    """The samples that splitting matrices are averaged over."""

    samples: int = 8192  # at most; docs/selection_noise.md tells what fewer cost
    batch_size: int = 128
    memory: float = 4.0  # GiB for batches that have been linearised; with less, the same takes longer

    def __post_init__(self) -> None:
        if not self.memory >= 0:
            raise ConfigError(f"memory: expected a number >= 0 (GiB), got {self.memory!r}")
        for name in ("samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a whole number >= 1, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Task:
    """The content of a task.yml."""

    data: DataSettings
    model: dict[str, Any]  # factory: "package.module:function", and its keyword arguments beside the widths
    search_space: str  # path of the search-space file, relative to task.yml
    training: Recipe = field(default_factory=Recipe)
    curvature: CurvatureSettings = field(default_factory=CurvatureSettings)
    seed: int = 0
    device: str = "auto"  # "auto" takes a GPU where there is one
    threads: int | None = None  # of PyTorch on the processor; by default its own choice, all cores
    directory: str = field(default=".", metadata={"setting": False})  # of task.yml; set by `read_task`

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed: expected a whole number >= 0 and < 2**63, got {self.seed!r}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads: expected a whole number >= 1, got {self.threads!r}")
        if not isinstance(self.model.get("factory"), str):
            raise ConfigError(f'model: expected factory: "package.module:function", got {self.model!r}')
        try:
            json.dumps(self.model)
        except (TypeError, ValueError) as error:  # YAML has dates, sets and loops besides
            raise ConfigError(f"model: expected arguments that JSON can say, got {error}") from error
        try:
            torch.zeros(1, device=self.torch_device).item()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise ConfigError(f"device: expected auto or one that PyTorch finds here, got {self.device!r}") from error

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What determines the results on this task: everything but where it runs."""
        settings = dataclasses.asdict(self)
        del settings["curvature"]["memory"]
        if settings["data"]["folder"] is None:  # which other sets do not have
            del settings["data"]["folder"]
        else:
            del settings["data"]["folder"]["workers"]
        for name in (name for name in _OF_CLOUDS if settings["data"][name] is None):
            del settings["data"][name]  # what was done on images before there were clouds is found again
        return {name: value for name, value in settings.items() if name not in _WHERE}

    def space(self) -> Space:
        """Read the search space."""
        return Space.read(Path(self.directory, self.search_space))

    def load_data(self) -> DataSet:
        """Load the data set.

        Raises:
            ConfigError: the settings do not fit the data.
            DataError: its files are not there.
        """
        try:
            own = self.data
            data = load(own.name, own.validation, own.samples, folder=own.folder, points=own.points)
        except ConfigError as error:
            raise ConfigError(f"data.{error}") from error
        side = min(data.shape[1:])
        if self.data.pad > side:
            raise ConfigError(f"data.pad: expected at most {side}, the size of the images, got {self.data.pad}")
        return data

    def build_model(self, widths: dict[str, int], seed: int, shape: torch.Size | None = None) -> nn.Module:
        """Build the network with these widths and fresh weights, on the task's device.

        Args:
            widths: of all layers of the search space.
            seed: of the weights.
            shape: of the inputs, without the samples, if it is known; else the data set is loaded where a network must
                be traced.

        Raises:
            ConfigError: the factory cannot be imported, does not take its arguments, or makes something else.
            ModelError: the network cannot have these widths.
        """
        settings = {key: value for key, value in self.model.items() if key != "factory"}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_network(
                self.model["factory"],
                settings,
                widths,
                lambda: self.example(self.load_data().shape if shape is None else shape).cpu(),
            )
        return model.to(self.torch_device)

    def example(self, shape: torch.Size) -> Tensor:
        """Return an input (1, *shape) to trace networks on, on the task's device."""
        noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
        return noise.to(self.torch_device)

    @property
    def torch_device(self) -> torch.device:
        """The device that trials of this task run on."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def training_loader(self, data: DataSet, seed: int) -> Loader:
        """Return shuffled, augmented batches of the training set."""
        return Loader(
            data.train,
            data.mean,
            data.std,
            self.training.batch_size,
            seed=seed,
            pad=self.data.pad,
            flip=self.data.flip,
            scale=1.0 if self.data.scale is None else self.data.scale,
            shift=0.0 if self.data.shift is None else self.data.shift,
            device=self.torch_device,
        )

    def curvature_loader(self, data: DataSet, seed: int) -> Loader:
        """Return fixed batches of some training samples as they are."""
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
        chosen = data.train[order[: self.curvature.samples]]
        return Loader(chosen, data.mean, data.std, self.curvature.batch_size, device=self.torch_device)


def read_task(path: Path) -> Task:
    """Read a task.yml.

    The factory of its model may stand in a file beside it: the folder is one in which Python looks from now on.

    Raises:
        ConfigError: the file is missing, or a key is unknown, missing, of the wrong type or out of range.
    """
    task = dataclasses.replace(build(Task, read_yaml(path), path), directory=str(path.parent))
    look_in(path.parent)
    return task


def digest(content: object) -> str:
    """Return a short hash of JSON content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
