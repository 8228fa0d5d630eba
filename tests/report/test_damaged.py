"""Whatever NNI's database and its list of experiments have become: a report, or one line."""

import json
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_s3d.report import nni_database, nni_experiments
from tests.report.fake_nni import Nni, metrics, spec
from tests.test_bad_input import assert_refused_or_fine, few, many, run, values

COLUMNS = {
    "TrialJobEvent": ["timestamp", "trialJobId", "event", "data", "logPath", "sequenceId"],
    "MetricData": ["timestamp", "trialJobId", "parameterId", "type", "sequence", "data"],
    "ExperimentProfile": ["params", "revision"],
}
as_json = values.map(json.dumps)
cells = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=8),
    as_json,
    as_json.map(json.dumps),  # as in MetricData
    st.fixed_dictionaries({"parameter_id": st.just(0), "parameters": values}).map(json.dumps),
    st.fixed_dictionaries(dict.fromkeys(("lineage", "step", "conv0"), values)).map(
        lambda parameters: json.dumps({"parameter_id": 0, "parameters": parameters})
    ),
    st.sampled_from(["[" * 3000, '{"default": 1e999}', r'{"parameter_id": 0, "parameters": {"lineage": "\ud800"}}']),
)


@pytest.fixture(scope="module")
def nni(tmp_path_factory):
    """A small experiment at the place where NNI keeps its experiments."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setattr(nni_database, "_PAUSE", 0)
        patch.setattr(nni_experiments, "_PAUSE", 0)
        (home / "nni-experiments").mkdir()
        made = Nni(home / "nni-experiments", status="STOPPED")
        made.trial(0, spec(0), metrics(0.6, 0, test=0.9), end=20)
        made.trial(1, spec(0, "c1-m2-s0"), metrics(0.5, 0), end=19)
        made.trial(2, spec(1, width=12), None, end=30, status="FAILED")
        made.trial(3, spec(2, width=20), None, end=60, status="RUNNING")
        made.config({"tuner": {"name": "S3D", "classArgs": {"store": "nowhere"}}})
        yield made


def assert_reported_or_refused(nni, draw):
    out = nni.root.parent / "out"
    words = draw(st.sampled_from([["--json"], ["--json"], ["--out", out]]))  # drawing a page takes a second
    code, printed, said = run("report", "--no-wait", *words)
    assert_refused_or_fine(code, printed, said)


def one_damaged_database(nni, data):
    whole = nni.database.read_bytes()
    content = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=300)):
        content[place] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    try:
        nni.database.write_bytes(content[:length])
        assert_reported_or_refused(nni, data.draw)
    finally:
        nni.database.write_bytes(whole)


def one_strange_database(nni, data):
    whole = nni.database.read_bytes()
    try:
        with closing(sqlite3.connect(nni.database)) as connection, connection:
            for _ in range(data.draw(st.integers(1, 5))):
                table = data.draw(st.sampled_from(sorted(COLUMNS)))
                column = data.draw(st.sampled_from(COLUMNS[table]))
                rows = data.draw(st.sampled_from(["", " where rowid = 1", " where rowid = 2", " where rowid = 5"]))
                connection.execute(f"update {table} set {column} = ?{rows}", [data.draw(cells)])
        assert_reported_or_refused(nni, data.draw)
    finally:
        nni.database.write_bytes(whole)


def one_strange_list(nni, data):
    path = nni.root / ".experiment"
    whole = path.read_text()
    entry = json.loads(whole)[nni.name] | {"status": data.draw(st.sampled_from(["STOPPED", "RUNNING"]))}
    names = st.sampled_from(sorted(entry))
    strange = st.one_of(values, st.sampled_from(["x" * 5000, 2**40]))
    changes = st.dictionaries(names, strange, max_size=3)
    keys = st.one_of(st.just(nni.name), st.text(), st.just("x" * 5000))
    entries = {data.draw(keys): entry | data.draw(changes) for _ in range(2)}
    text = data.draw(st.sampled_from([json.dumps(entries)] * 9 + ["[" * 100_000]))
    try:
        path.write_text(text[: data.draw(st.one_of(st.just(len(text)), st.integers(0, len(text))))])
        assert_reported_or_refused(nni, data.draw)
    finally:
        path.write_text(whole)


ONES = [one_damaged_database, one_strange_database, one_strange_list]


@pytest.mark.parametrize("one", ONES)
@few
@given(data=st.data())
def test_a_report_of_what_is_damaged(nni, one, data):
    one(nni, data)


@pytest.mark.slow
@pytest.mark.parametrize("one", ONES)
@many
@given(data=st.data())
def test_thousands_of_reports_of_what_is_damaged(nni, one, data):
    one(nni, data)


def test_what_is_whole_is_reported(nni):
    """So that the tests above do not pass because nothing is ever reported."""
    code, printed, _ = run("report", "--no-wait", "--json")
    assert (code, len(printed.splitlines())) == (0, 4)
