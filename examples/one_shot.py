"""A one-shot strategy of NNI on the same task as S3D: train all widths at once in a supernet, then the best one anew.

    python examples/one_shot.py [--strategy darts|gumbel_darts] [--task configs/digits/task.yml] [--epochs 20]
                                [--seed 0] [--store one_shot_store] [--port 8080]

No layer of the task's network is prepared for this: `Supernet` finds out which widths belong together. RandomOneShot
trains such a supernet, too, but leaves the search to another strategy, so it is not among these two.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.experiment import NasExperiment
from nni.nas.strategy import DARTS, GumbelDARTS
from torch.utils.data import TensorDataset

from nni_s3d import count, trace
from nni_s3d.plugin.supernet import Supernet
from nni_s3d.search import trial
from nni_s3d.search.store import Store
from nni_s3d.tasks.data import DataSet, Loader, Samples
from nni_s3d.tasks.task import Task, read_task

STRATEGIES = {"darts": DARTS, "gumbel_darts": GumbelDARTS}


def batches(data: DataSet, part: Samples, batch_size: int) -> DataLoader:
    """Return the batches of a part of the data, as NNI's evaluator wants them: images normalised, in random order."""
    (whole,) = Loader(part, data.mean, data.std, len(part))
    return DataLoader(TensorDataset(*whole), batch_size=batch_size, shuffle=True)


def search(task_file: Path, strategy: str, epochs: int, lr: float, port: int) -> dict[str, int]:
    """Train a supernet and return the widths that its strategy prefers."""
    space = Supernet(str(task_file))
    data = space.task.load_data()
    evaluator = Classification(
        learning_rate=lr,
        train_dataloaders=batches(data, data.train, space.task.training.batch_size),
        val_dataloaders=batches(data, data.validation, space.task.training.batch_size),
        num_classes=data.num_classes,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    experiment = NasExperiment(space, evaluator, STRATEGIES[strategy]())
    experiment.run(port=port)
    (widths,) = experiment.export_top_models(1, formatter="dict")
    experiment.stop()
    return {name: int(width) for name, width in widths.items()}


def supernet_macs(task: Task, epochs: int) -> int:
    """Return the MACs of a supernet's training: weights on the training images, widths on those of validation."""
    data = task.load_data()
    largest = task.build_model(task.space().high, task.seed, data.shape)
    images = 2 * max(len(data.train), len(data.validation))  # the smaller set is shown again until the larger one ends
    return 3 * count(trace(largest, task.example(data.shape))).macs * images * epochs


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="darts")
    parser.add_argument("--task", type=Path, default=Path("configs/digits/task.yml"))
    parser.add_argument("--epochs", type=int, default=20, help="of the supernet")
    parser.add_argument("--lr", type=float, default=0.01, help="of the supernet's Adam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="one_shot_store", help="path or URL of what is trained last")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args(arguments)

    torch.manual_seed(args.seed)
    widths = search(args.task, args.strategy, args.epochs, args.lr, args.port)
    task = replace(read_task(args.task), seed=args.seed)
    metrics = trial.run(widths, task, Store(args.store))
    spent = supernet_macs(task, args.epochs) + metrics["train_macs"]
    print(f"{args.strategy}: {widths}")
    print(
        f"test accuracy {metrics['test_accuracy']:.4f}, {metrics['params']:,} params, {metrics['macs']:,} MACs, "
        f"{spent / 1e9:.1f} G MACs of training"
    )


if __name__ == "__main__":
    main()
