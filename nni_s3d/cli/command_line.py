"""The command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import argparse
import inspect
import logging
import signal
import sys
import textwrap
from importlib.metadata import version
from types import ModuleType
from typing import NoReturn

import shtab

from nni_s3d.cli import check, compare, export, grow, new, register, report, store
from nni_s3d.cli import inspect as inspect_command
from nni_s3d.cli.colour import red
from nni_s3d.errors import S3DError, one_line, place_of, print_traceback

COMMANDS: dict[str, ModuleType] = {
    "new": new,
    "grow": grow,
    "check": check,
    "inspect": inspect_command,
    "report": report,
    "compare": compare,
    "export": export,
    "store": store,
    "register": register,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a mistake of the user's is one line on standard error and exit code 2."""
    parsed = parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("nni_s3d").setLevel(logging.WARNING if parsed.quiet else logging.INFO)
    try:
        return int(parsed.run(parsed))
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        again = "; the same command goes on where it was" if parsed.run in (grow.run, compare.run) else ""
        print(f"nni-s3d: interrupted{again}", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        print_traceback(error, parsed.traceback)
        known = isinstance(error, S3DError)
        said = one_line(error) if known else f"unexpected {type(error).__name__}: {one_line(error)}{place_of(error)}"
        print(f"nni-s3d: {red('error:', sys.stderr)} {said}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(one_line(S3DError(message)))  # words may be anything


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the first line of a command's file is its help, the rest stands below it."""
    made = _Parser(
        prog="nni-s3d",
        description="Grow neural networks by signed splitting (S3D).",
        epilog="exit codes: 0 all went well, 1 a trial failed or a file is damaged, 2 there is something to mend "
        "in what was given, 130 interrupted, 141 nobody reads the output any more",
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {version('nni_s3d')}")
    shtab.add_argument_to(made, ["-s", "--print-completion"], help="print what makes a shell complete this command")
    made.add_argument("-q", "--quiet", action="store_true", help="tell of warnings and results alone")
    made.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary, _, examples = inspect.cleandoc(module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary.rstrip(".").replace(summary[:1], summary[:1].lower(), 1),
            description=summary,
            epilog="examples:\n" + textwrap.indent(examples.strip("\n"), "  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return made
