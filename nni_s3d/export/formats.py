"""A network as a file: safetensors for this package, a program of torch.export, and ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from nni_s3d.errors import ReportError, first_line
from nni_s3d.tasks.grown import save_grown

_TOLERANCE = 1e-4  # of what a written network computes, relative to the largest output
_BATCHES = (2, 5)  # samples that it is tried on: the first dimension is free


def write_safetensors(model: nn.Module, shape: torch.Size, path: Path) -> None:
    """Write the weights, with the sizes of the layers, for `load_grown`."""
    save_grown(model, path)


def write_program(model: nn.Module, shape: torch.Size, path: Path) -> None:
    """Write a program of torch.export, which PyTorch runs without the code of the network."""
    torch.export.save(_program(model, shape), path)
    _compare(model, torch.export.load(path).module(), shape, path)


def write_onnx(model: nn.Module, shape: torch.Size, path: Path) -> None:
    """Write ONNX, and make sure that onnxruntime computes the same.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing.
    """
    import onnxruntime
    import onnxscript  # noqa: F401  (what torch.onnx needs, before anything is written)

    torch.onnx.export(_program(model, shape), (), path, dynamo=True, verbose=False, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    _compare(model, lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0]), shape, path)


FORMATS: dict[str, tuple[str, Callable[[nn.Module, torch.Size, Path], None]]] = {
    "safetensors": ("model.safetensors", write_safetensors),
    "pt2": ("model.pt2", write_program),
    "onnx": ("model.onnx", write_onnx),
}


def write(model: nn.Module, shape: torch.Size, kind: str, folder: Path) -> Path:
    """Write a network, in evaluation mode on the processor, and return the path of the file.

    Args:
        model: the network.
        shape: of an input, without the samples.
        kind: one of `FORMATS`.
        folder: where the file is written, under a temporary name first.

    Raises:
        ReportError: the network cannot be written like this, or what was written computes something else.
        ImportError: a package is missing.
    """
    name, writer = FORMATS[kind]
    target = folder / name
    unfinished = target.with_name(f"unfinished-{name}")
    try:
        with _quiet():
            writer(model, shape, unfinished)
        unfinished.replace(target)
    except (ImportError, ReportError):
        raise
    except Exception as error:  # whatever torch.export says of a network, or the file system
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ReportError(f"{target}: expected a network that can be written as {kind}, got {reason}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _program(model: nn.Module, shape: torch.Size) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=1, max=2**20)}
    return torch.export.export(model, (_inputs(_BATCHES[0], shape),), dynamic_shapes=(batch,))


def _inputs(samples: int, shape: torch.Size) -> Tensor:
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(samples))


@torch.no_grad()
def _compare(model: nn.Module, written: Callable[[Tensor], Tensor], shape: torch.Size, path: Path) -> None:
    """Raise ReportError unless a written network computes what the network does, on any number of samples."""
    for samples in _BATCHES:
        inputs = _inputs(samples, shape)
        expected, got = model(inputs), written(inputs)
        apart = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        if not apart <= _TOLERANCE:
            raise ReportError(f"{path}: expected the outputs of the network to {_TOLERANCE:g}, got {apart:.1g}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's notes on its own internals to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
