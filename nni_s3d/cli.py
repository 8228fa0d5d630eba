"""The command nni-s3d."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from nni_s3d.errors import S3DError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a mistake of the user's is one line on standard error and exit code 2."""
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return int(parsed.run(parsed))
    except S3DError as error:
        print(f"nni-s3d: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nni-s3d", description="Grow neural networks by signed splitting (S3D).")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    grow = commands.add_parser("grow", help="run an experiment in this process, without NNI")
    grow.add_argument("config", type=Path, help="an experiment file for nnictl, such as configs/digits/s3d.yml")
    grow.add_argument("--store", help="path or URL of the artefacts (default: runs/<task>-<strategy>)")
    grow.set_defaults(run=_grow)

    check = commands.add_parser("check", help="find mistakes in an experiment before anything is trained")
    check.add_argument("config", type=Path, help="an experiment file for nnictl whose tuner is S3D")
    check.set_defaults(run=_check)

    report = commands.add_parser("report", help="table, CSV and plots of an NNI experiment")
    report.add_argument("experiment", nargs="?", help="its id (default: the latest)")
    report.add_argument("--no-wait", action="store_true", help="do not wait for a running experiment to end")
    report.add_argument("--out", type=Path, help="folder for the files (default: reports/<id>)")
    report.set_defaults(run=_report)

    register = commands.add_parser("register", help='tell NNI about the tuner, so that "tuner: {name: S3D}" works')
    register.set_defaults(run=_register)
    return parser


# Each command imports what it uses, so that no other one waits for it.


def _grow(parsed: argparse.Namespace) -> int:
    from nni_s3d.experiment import read_experiment, run
    from nni_s3d.store import Store

    experiment = read_experiment(parsed.config)
    url = parsed.store or str(Path("runs", f"{parsed.config.resolve().parent.name}-{parsed.config.stem}"))
    failed = False
    for parameters, metrics in run(experiment, Store(url)):
        name = f"{parameters['lineage']} step {parameters['step']}"
        if metrics is None:
            failed = True
            print(f"{name}: failed")
            continue
        print(
            f"{name}: accuracy {metrics['default']:.4f} (test {metrics['test_accuracy']:.4f}), "
            f"{metrics['params']:,} params, {metrics['macs']:,} MACs, widths {parameters['widths']}"
        )
    print(f"artefacts: {url}")
    return 1 if failed else 0


def _check(parsed: argparse.Namespace) -> int:
    from nni_s3d.experiment import check, read_experiment

    experiment = read_experiment(parsed.config)
    cost = check(experiment)
    names = ", ".join(f"{lineage.label} (up to {lineage.steps} steps)" for lineage in experiment.lineages)
    print(f"{parsed.config}: {names} on {experiment.task.data.name}, from {cost.params:,} params, {cost.macs:,} MACs")
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from nni_s3d.report import command

    return command(parsed.experiment, not parsed.no_wait, parsed.out)


def _register(parsed: argparse.Namespace) -> int:
    from nni_s3d.plugin.register import register

    register()
    print("registered: tuner: {name: S3D}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
