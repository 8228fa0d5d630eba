"""Show an NNI experiment as a table, and write a CSV file and plots.

nni-s3d report                                 # the latest experiment, once it has ended
nni-s3d report kjh2bv8x --no-wait --out reports/digits
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", nargs="?", help="its id (default: the latest)")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for a running experiment to end")
    parser.add_argument("--out", type=Path, help="folder for the files (default: reports/<id>)")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.report.command import command

    return command(parsed.experiment, not parsed.no_wait, parsed.out)
