"""Tell NNI about the tuner, so that "tuner: {name: S3D}" works.

nni-s3d register
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.plugin.register import register

    register()
    print("registered: tuner: {name: S3D}")
    return 0
