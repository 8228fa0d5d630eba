"""Look after a store: find damaged files, remove what nothing needs.

nni-s3d store verify runs/digits-s3d                  # reads every file and compares its checksum
nni-s3d store prune runs/digits-s3d --keep newest     # the weights of the newest network of each lineage stay
nni-s3d store prune s3://bucket/digits --keep front   # and those on the front of accuracy against MACs
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_s3d.search.store import Store

# Those of `nni_s3d.search.lineage`, which a command line need not load.
KEEP = ("all", "front", "newest")
FRONTS = ("macs", "params")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", choices=["verify", "prune"])
    parser.add_argument("store", help="its path or URL, such as runs/digits-s3d or NNI_S3D_STORE")
    parser.add_argument("--keep", choices=KEEP, default="all", help="of prune: whose weights stay (default: all)")
    parser.add_argument("--front", choices=FRONTS, default="macs", help="of --keep front: which cost (default: macs)")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    from nni_s3d.search.store import Store

    store = Store(parsed.store)
    return _verify(store) if parsed.action == "verify" else _prune(store, parsed.keep, parsed.front)


def _verify(store: Store) -> int:
    from nni_s3d.search.verification import verify

    checked = damaged = 0
    for _, trouble in verify(store):
        checked += 1
        if trouble:
            damaged += 1
            print(trouble)
    again = "; steps that need them, and the same nni-s3d grow, make them again" if damaged else ""
    print(f"{store.url}: {checked} files, {damaged} of them damaged{again}")
    return 1 if damaged else 0


def _prune(store: Store, keep: str, front: str) -> int:
    from nni_s3d.search.retention import prune

    print(f"{store.url}: removed {prune(store, keep, front)} files")
    return 0
