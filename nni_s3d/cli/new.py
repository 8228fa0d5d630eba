"""Write a folder to start from: a task, a search space, and an experiment for every strategy.

nni-s3d new digits my_digits                                # scikit-learn's digits: nothing to download
nni-s3d new imagefolder my_images --data /data/flowers      # with train/CLASS/*.jpg and val/CLASS/*.jpg
nni-s3d new own my_net                                      # a network of your own, in a file beside the task
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from string import Template

from nni_s3d.errors import ConfigError, DataError

STARTERS = files("nni_s3d") / "starters"
KINDS = ("digits", "imagefolder", "own")
_TEMPLATE = ".template"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("to", type=Path, metavar="DIR", help="the folder, which is made")
    parser.add_argument("--data", type=Path, help="of imagefolder: the folder with train and val")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    if parsed.to.exists() and (not parsed.to.is_dir() or any(parsed.to.iterdir())):
        raise ConfigError(f"{parsed.to}: expected a folder that is empty or not there yet")
    if (parsed.kind == "imagefolder") != (parsed.data is not None):
        raise ConfigError(f"--data: expected the folder of the images with imagefolder alone, got {parsed.data}")
    values = {} if parsed.data is None else _of_images(parsed.data)
    try:
        parsed.to.mkdir(parents=True, exist_ok=True)
        for source in (STARTERS / parsed.kind).iterdir():
            text = source.read_text(encoding="utf-8")
            if source.name.endswith(_TEMPLATE):
                text = Template(text).substitute(values)
            (parsed.to / source.name.removesuffix(_TEMPLATE)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{parsed.to}: expected a folder to write to, got: {error.strerror}") from error
    experiment = parsed.to / "s3d.yml"
    print(f"nni-s3d check {experiment}\nnnictl create --config {experiment}\nnni-s3d report")
    return 0


def _of_images(folder: Path) -> dict[str, object]:
    """Return what a task says of a folder of images."""
    classes = [path for path in folder.glob("train/*") if path.is_dir()]
    if not classes or not (folder / "val").is_dir():
        raise DataError(f"{folder}: expected train/CLASS and val/CLASS with images, found {len(classes)} classes")
    return {"data": str(folder.resolve()), "classes": len(classes)}
