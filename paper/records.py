"""The rows of a study in one file, without its networks: from there the study goes on in another place.

A job is recorded with a hash of its task and its settings. If they have changed, it is run anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nni_s3d.errors import StoreError
from nni_s3d.search.folder import Folder
from nni_s3d.tasks.task import digest
from paper.bench import Bench


def restore(path: Path, benches: Iterable[Bench]) -> None:
    """Take over the jobs that a file has the rows of; a job that needs those of another one stands behind it."""
    records = Folder(str(path.parent)).read_json(path.name) or {}
    for bench in benches:
        record = records.get(bench.job.folder)
        with suppress(StoreError):  # the networks that it is compared with are not done
            if record and not bench.rows() and record["comes_from"] == _origin(bench):
                bench.keep(record["rows"], done=True)


def record(path: Path, benches: Iterable[Bench]) -> None:
    """Add the rows of all jobs that are done to a file."""
    store = Folder(str(path.parent))
    records = store.read_json(path.name) or {}
    for bench in benches:
        with suppress(StoreError):
            if rows := bench.rows():
                records[bench.job.folder] = {"comes_from": _origin(bench), "rows": rows}
    store.write_json(path.name, dict(sorted(records.items())))


def _origin(bench: Bench) -> str:
    space = bench.task.space()
    return digest(bench.comes_from | {"search space": {"low": space.low, "high": space.high}})
