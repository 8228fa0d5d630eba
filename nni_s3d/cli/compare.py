"""Compare strategies on the same work, at an equal cost of training.

nni-s3d compare configs/digits/*.yml --budget 13G --seeds 0 1 2 --workers 2    # the same command goes on after a stop
nni-s3d compare --ids kjh2bv8x a7xz01bq --budget 13G                           # of experiments that NNI has run
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nni_s3d.cli.values import at_least_one, count
from nni_s3d.errors import S3DError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG", help="experiment files with the same task")
    parser.add_argument("--ids", nargs="+", default=[], metavar="ID", help="experiments that NNI has run")
    parser.add_argument("--budget", type=count, metavar="12G", help="MACs of training that every strategy may spend")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    parser.add_argument("--workers", type=at_least_one, default=1, help="processes; default: 1")
    parser.add_argument("--out", type=Path, default=Path("reports/compare"), help="default: reports/compare")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    try:
        from nni_s3d.compare.command import command
    except ImportError as error:
        raise S3DError(f'compare needs {error.name}: pip install "nni_s3d[plots]"') from error

    configs = [path for path in parsed.configs if not path.stem.startswith("task")]  # configs/digits/*.yml has it, too
    chosen = (parsed.budget, parsed.seeds, parsed.workers)
    return command(configs, parsed.ids, *chosen, parsed.out, parsed.json)
