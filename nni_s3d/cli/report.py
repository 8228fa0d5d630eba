"""Show experiments as tables, CSV files, plots and one page for a browser.

nni-s3d report                                 # the latest experiment, once it has ended
nni-s3d report --live                          # the page while it runs, at http://localhost:8888
nni-s3d report kjh2bv8x a7xz01bq --no-wait --out reports/digits
nni-s3d report runs/digits-s3d                 # the store of nni-s3d grow
"""

from __future__ import annotations

import argparse
from pathlib import Path

_PORT = 8888


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="ids or stores (default: the latest)")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for running experiments to end")
    parser.add_argument("--out", type=Path, help="folder for the files (default: reports/<id>)")
    parser.add_argument("--live", nargs="?", type=int, const=_PORT, metavar="PORT", help=f"serve the page ({_PORT})")
    parser.add_argument("--json", action="store_true", help="print the trials as JSON, a line for each, and no more")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.report.command import command

    return command(parsed.experiments, not parsed.no_wait, parsed.out, parsed.live, parsed.json)
