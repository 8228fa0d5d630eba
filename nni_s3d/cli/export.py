"""Write a network that an experiment has found, for other programs.

nni-s3d export kjh2bv8x --to best              # the best on validation images
nni-s3d export kjh2bv8x --under-macs 200k --to small
nni-s3d export runs/digits-s3d --formats onnx --to onnx
nni-s3d export runs/my_net-s3d --factory my_model:network --to best     # a network of your own
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nni_s3d.cli.values import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("experiment", help="its id, or the path or URL of a store, such as runs/digits-s3d")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--trial", metavar="ID", help="the network of this trial")
    chosen.add_argument("--best", action="store_true", help="the one of best validation accuracy (the default)")
    chosen.add_argument("--under-macs", type=count, metavar="1.2M", help="the best with at most so many MACs")
    chosen.add_argument("--under-params", type=count, metavar="50k", help="the best with at most so many parameters")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--formats", nargs="+", choices=["safetensors", "pt2", "onnx"], default=[], help="default: all")
    parser.add_argument("--store", help="where the artefacts are (default: NNI_S3D_STORE, or NNI's own folder)")
    parser.add_argument("--factory", metavar="MODULE:NAME", help="of a network of your own: what its task.yml says")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.export.command import command

    limits = (parsed.under_macs, parsed.under_params)
    chosen = (parsed.trial, *limits, parsed.formats, parsed.store, parsed.factory)
    return command(parsed.experiment, parsed.to, *chosen)
