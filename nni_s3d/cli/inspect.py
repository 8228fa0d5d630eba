"""Tell which layers of a network can be split, and what a neuron costs.

nni-s3d inspect torchvision.models:resnet18 --input 1,3,224,224
nni-s3d inspect torchvision.models:mobilenet_v2 --input 1,3,32,32 --set num_classes=10 --search-space space.json
nni-s3d inspect torchvision.models:vgg11 --input 1,3,224,224 --json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nni_s3d.cli.values import setting, sizes
from nni_s3d.errors import ConfigError, first_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("factory", help="package.module:function that returns the network")
    parser.add_argument("--input", required=True, type=sizes, metavar="1,3,224,224", help="shape of an input")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="keyword arguments of the function; may be given several times",
    )
    parser.add_argument("--search-space", type=Path, metavar="FILE", help="write a search space to start from")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    import json

    import torch

    from nni_s3d.growth.trace import trace
    from nni_s3d.tasks.factories import build_network
    from nni_s3d.tasks.inspection import described, search_space, table

    if parsed.search_space is not None and parsed.search_space.exists():
        raise ConfigError(f"{parsed.search_space}: expected a file that is not there yet")
    torch.manual_seed(0)
    settings = dict(map(setting, parsed.set))
    try:
        inputs = torch.randn(parsed.input)
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        raise ConfigError(f"--input: expected a shape that fits into memory, got {first_line(error)}") from error
    graph = trace(build_network(parsed.factory, settings, None, lambda: inputs), inputs)
    print(json.dumps(described(graph)) if parsed.json else table(graph))
    if parsed.search_space is not None:
        try:
            parsed.search_space.write_text(json.dumps(search_space(graph), indent=4) + "\n")
        except OSError as error:
            raise ConfigError(f"{parsed.search_space}: expected a file to write to, got: {error.strerror}") from error
        print(parsed.search_space, file=sys.stderr if parsed.json else sys.stdout)
    return 0
