"""What a trial shows in TensorBoard, which a button of NNI's web UI opens.

Scalars        validation accuracy while it trained; by growth step: the width of every layer, the size, the changes
               of the loss by the split
Histograms     both ends of the spectrum of every layer, by growth step
HParams        widths beside accuracy, parameters, MACs and FLOPs
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nni_s3d.search.notes import read_spectra, read_split
from nni_s3d.search.stored import StoredNetwork

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_logger = logging.getLogger(__name__)
_SIZES = ("params", "macs", "flops")


def write_tensorboard(history: Sequence[StoredNetwork], accuracies: Sequence[float], folder: Path) -> bool:
    """Write the event files of a finished trial; return whether TensorBoard is installed.

    Args:
        history: the networks of its lineage up to its own, which is the last one.
        accuracies: those that it has reported on its way.
        folder: where TensorBoard will look.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _logger.info('nothing for TensorBoard: pip install "nni_s3d[plots]"')
        return False
    with SummaryWriter(str(folder)) as writer:
        for number, accuracy in enumerate(accuracies):
            writer.add_scalar("training/validation accuracy", accuracy, number)
        for network in history:
            _write_step(writer, network, int(network.metrics.get("step", 0)))
        own = history[-1]
        told = {"lineage": own.parameters.get("lineage") or "", "step": own.metrics.get("step", 0), **own.widths}
        results = {"accuracy": own.metrics["default"], **{name: own.metrics[name] for name in _SIZES}}
        writer.add_hparams(told, {f"hparams/{name}": value for name, value in results.items()}, run_name=".")
    return True


def _write_step(writer: SummaryWriter, network: StoredNetwork, step: int) -> None:
    """Write what is told of one growth step."""
    for name in ("default", "test_accuracy", *_SIZES):
        writer.add_scalar(f"growth/{'accuracy' if name == 'default' else name}", network.metrics[name], step)
    for layer, width in network.widths.items():
        writer.add_scalar(f"width/{layer}", width, step)
    if (note := read_split(network.store, network.key)) is not None:
        changes = {"predicted": note.predicted, "held out": note.held_out, "measured": note.after - note.before}
        for name, change in changes.items():
            if change is not None:
                writer.add_scalar(f"change of the loss by the split/{name}", change, step)
    for layer, ends in read_spectra(network.store, network.key).items():
        for name, values in zip(("lambda min", "lambda max"), ends, strict=True):
            writer.add_histogram(f"{name}/{layer}", values, step)
