"""The command nni-s3d: one file for every command, none of which loads what another one needs."""

from nni_s3d.cli.command_line import main, parser

__all__ = ["main", "parser"]
