"""The command `nni-s3d export`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nni_s3d.errors import ReportError
from nni_s3d.export.choice import choose
from nni_s3d.export.formats import FORMATS, write
from nni_s3d.report.networks import TrialNetwork, code_folder, networks_of
from nni_s3d.search.folder import Folder
from nni_s3d.search.load_network import load_network, stored_task
from nni_s3d.tasks.data import DataSet
from nni_s3d.tasks.factories import look_in
from nni_s3d.tasks.task import Task

_TRUSTED = ("nni_s3d.models", "torchvision.models")  # modules whose functions a store may name
_HEAD = """# {factory}, {accuracy:.4f} on the validation images

`model.json` has its widths, its accuracy and where it comes from. Inputs are float32 (samples, {shape}){pixels}.
"""
_SNIPPETS = {
    "pt2": """
With PyTorch alone:

```python
import torch

model = torch.export.load("model.pt2").module()
outputs = model(torch.zeros(4, {shape}))
```
""",
    "onnx": """
With onnxruntime:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
name = session.get_inputs()[0].name
outputs = session.run(None, {{name: np.zeros((4, {shape}), np.float32)}})[0]
```
""",
    "safetensors": """
As an `nn.Module`, to train on:

```python
from nni_s3d import load_grown
from {module} import {function}

model = load_grown(lambda: {function}({arguments}), "model.safetensors")
```
""",
}


def command(
    name: str,
    to: Path,
    trial: str | None = None,
    under_macs: float | None = None,
    under_params: float | None = None,
    formats: Sequence[str] = (),
    store: str | None = None,
    factory: str | None = None,
    experiments_dir: Path | None = None,
) -> int:
    """Run `nni-s3d export`: choose a network, write it, say what was written.

    The store names the function that builds the network. It is called if it is one of this package or of torchvision,
    or the one that the user names, too.

    Raises:
        S3DError: there is no such network, or it cannot be written.
    """
    chosen = choose(networks_of(name, store, experiments_dir), trial, under_macs, under_params)
    task = stored_task(chosen.network.store)
    _check_factory(task, factory)
    if code := code_folder(name, experiments_dir):
        look_in(code)
    data = task.load_data()
    model = load_network(chosen.network, task, data.shape)
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{to}: expected a folder to write to, got: {error.strerror}") from error
    written = []
    for kind in formats or FORMATS:
        try:
            print(write(model, data.shape, kind, to))
            written.append(kind)
        except ImportError as error:
            missing = f'{kind} needs {error.name}: pip install "nni_s3d[export]"'
            if formats:
                raise ReportError(missing) from error
            print(f"not written: {missing}", file=sys.stderr)
    files = Folder(str(to))
    files.write_json("model.json", described(chosen, task, data))
    files.write_bytes("README.md", notes(chosen, task, data, written).encode())
    print(to / "model.json", to / "README.md", sep="\n")
    return 0


def _check_factory(task: Task, factory: str | None) -> None:
    stored = task.model["factory"]
    if factory not in (None, stored):
        raise ReportError(f"--factory: expected {stored}, with which the network was made, got {factory}")
    if factory is None and stored.partition(":")[0] not in _TRUSTED:
        raise ReportError(f"export: expected --factory {stored}, since this runs code that the store names; got none")


def described(chosen: TrialNetwork, task: Task, data: DataSet) -> dict[str, Any]:
    """Return what a network is, as JSON."""
    return {
        "model": task.model,
        "widths": chosen.network.widths,
        "input": {"shape": list(data.shape), "mean": list(data.mean), "std": list(data.std)},
        "classes": data.num_classes,
        "metrics": chosen.network.metrics,
        "from": {
            "experiment": chosen.experiment,
            "trial": chosen.trial,
            "lineage": chosen.network.parameters.get("lineage"),
            "step": chosen.network.parameters.get("step"),
            "task": task.fingerprint,
        },
        "versions": {"nni_s3d": version("nni_s3d"), "torch": torch.__version__},
    }


def notes(chosen: TrialNetwork, task: Task, data: DataSet, written: Sequence[str]) -> str:
    """Return how to load a network from the files that were written, in Markdown."""
    module, _, function = task.model["factory"].partition(":")
    settings = {key: value for key, value in task.model.items() if key != "factory"}
    return "".join([_HEAD, *(_SNIPPETS[kind] for kind in written)]).format(
        factory=task.model["factory"],
        accuracy=chosen.network.metrics["default"],
        pixels=": pixels from 0 to 255, divided by 255, less `mean`, divided by `std`" if data.mean else "",
        shape=", ".join(map(str, data.shape)),
        module=module,
        function=function,
        arguments=", ".join(f"{key}={value!r}" for key, value in settings.items()),
    )
