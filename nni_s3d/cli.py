"""The command nni-s3d."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nni_s3d.errors import ConfigError, S3DError

if TYPE_CHECKING:
    from nni_s3d.search.experiment import Experiment


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

    inspect = commands.add_parser("inspect", help="which layers of a network can be split, and what a neuron costs")
    inspect.add_argument("factory", help="package.module:function that returns the network")
    inspect.add_argument("--input", required=True, type=_sizes, metavar="1,3,224,224", help="shape of an input")
    inspect.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="keyword arguments of the function; may be given several times",
    )
    inspect.add_argument("--search-space", type=Path, metavar="FILE", help="write a search space to start from")
    inspect.set_defaults(run=_inspect)

    report = commands.add_parser("report", help="table, CSV and plots of an NNI experiment")
    report.add_argument("experiment", nargs="?", help="its id (default: the latest)")
    report.add_argument("--no-wait", action="store_true", help="do not wait for a running experiment to end")
    report.add_argument("--out", type=Path, help="folder for the files (default: reports/<id>)")
    report.set_defaults(run=_report)

    register = commands.add_parser("register", help='tell NNI about the tuner, so that "tuner: {name: S3D}" works')
    register.set_defaults(run=_register)
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(word) for word in text.split(","))
    if min(sizes) < 1:
        raise ValueError
    return sizes


_sizes.__name__ = "shape such as 1,3,224,224"  # what argparse calls it


# Each command imports what it uses, so that no other one waits for it.


def _grow(parsed: argparse.Namespace) -> int:
    from nni_s3d.search.experiment import read_experiment
    from nni_s3d.tasks.together import together

    experiment = read_experiment(parsed.config)
    url = parsed.store or str(Path("runs", f"{parsed.config.resolve().parent.name}-{parsed.config.stem}"))
    return together(experiment.task, lambda: _grow_here(experiment, url)) or 0


def _grow_here(experiment: Experiment, url: str) -> int:
    from nni_s3d.search.experiment import run
    from nni_s3d.search.spec import widths_of
    from nni_s3d.search.store import Store

    failed = False
    for parameters, metrics in run(experiment, Store(url)):
        name = f"{parameters['lineage']} step {parameters['step']}"
        if metrics is None:
            failed = True
            print(f"{name}: failed")
            continue
        print(
            f"{name}: accuracy {metrics['default']:.4f} (test {metrics['test_accuracy']:.4f}), "
            f"{metrics['params']:,} params, {metrics['macs']:,} MACs, widths {widths_of(parameters)}"
        )
    print(f"artefacts: {url}")
    return 1 if failed else 0


def _check(parsed: argparse.Namespace) -> int:
    from nni_s3d.search.experiment import check, read_experiment

    experiment = read_experiment(parsed.config)
    cost = check(experiment)
    names = ", ".join(f"{lineage.label} (up to {lineage.steps} steps)" for lineage in experiment.lineages)
    print(f"{parsed.config}: {names} on {experiment.task.data.name}, from {cost.params:,} params, {cost.macs:,} MACs")
    return 0


def _setting(text: str) -> tuple[str, object]:
    """Read KEY=VALUE, the value as in a task.yml."""
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set: expected KEY=VALUE, got {text!r}")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set: {key}: expected a value as in YAML, got {value!r}") from error


def _inspect(parsed: argparse.Namespace) -> int:
    import json

    import torch

    from nni_s3d.growth.trace import trace
    from nni_s3d.tasks.factories import build_network
    from nni_s3d.tasks.inspection import search_space, table

    if parsed.search_space is not None and parsed.search_space.exists():
        raise ConfigError(f"{parsed.search_space}: expected a file that is not there yet")
    torch.manual_seed(0)
    settings = dict(map(_setting, parsed.set))
    inputs = torch.randn(parsed.input)
    graph = trace(build_network(parsed.factory, settings, None, lambda: inputs), inputs)
    print(table(graph))
    if parsed.search_space is not None:
        try:
            parsed.search_space.write_text(json.dumps(search_space(graph), indent=4) + "\n")
        except OSError as error:
            raise ConfigError(f"{parsed.search_space}: expected a file to write to, got: {error.strerror}") from error
        print(parsed.search_space)
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from nni_s3d.report.command import command

    return command(parsed.experiment, not parsed.no_wait, parsed.out)


def _register(parsed: argparse.Namespace) -> int:
    from nni_s3d.plugin.register import register

    register()
    print("registered: tuner: {name: S3D}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
