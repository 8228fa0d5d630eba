"""Whatever a user writes: no traceback, exit code 2 and one line, and nothing is written.

Hypothesis draws files that are damaged, settings that are wrong and words that are none.
NNI_S3D_EXAMPLES sets how many of each test; `pytest -m slow tests/test_bad_input.py` draws thousands.
"""

import contextlib
import copy
import io
import json
import math
import os
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nni_s3d as s3d
from nni_s3d.cli import main
from nni_s3d.errors import S3DError
from nni_s3d.search.spec import parse_spec
from nni_s3d.tasks.search_space import Space
from tests import small_task

EXAMPLES = int(os.environ.get("NNI_S3D_EXAMPLES", "40"))
few = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=max(EXAMPLES, 2000))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**63, 2**64, 10**400, 1e300, math.nan, math.inf, -math.inf, "", "x", "\x1b[31m", "a\nb"]),
    st.floats(),
    st.text(max_size=8),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
# What YAML has besides, some of which its constructors do not bear.
snippets = st.sampled_from(
    [
        "!!int ''",
        "!!timestamp z",
        "!!float x",
        "!!binary ä",
        "!!set {a, b}",
        "&a [*a]",
        "2020-01-01",
        "!!python/object:os.system x",
        "[" * 2000,
        "{a: " * 500,
        "\x00",
        "? [1]\n: 2",
        "<<: 3",
        "!!omap 3",
        "&a [1,1]\nb: &b [*a,*a]",
        "*x",
        "%YAML 9",
        "--- a\n--- b",
    ]
)


def run(*words):
    """Return the exit code of a command, and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse
            code = end.code
    return code, out.getvalue(), err.getvalue()


def assert_refused(code, out, err):
    """One line of this package, and no surprise."""
    assert code == 2, (code, out, err)
    assert "Traceback" not in err
    assert "error: unexpected " not in err, err
    lines = [line for line in err.splitlines() if not line.startswith((" ", "usage"))]
    assert len(lines) == 1, err
    assert len(lines[0]) < 1200
    assert lines[0].isprintable(), lines[0]


def assert_refused_or_fine(code, out, err):
    if code != 0:
        assert_refused(code, out, err)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of a small experiment."""
    made = tmp_path_factory.mktemp("bad")
    small_task.write(made)
    return made


def places(content, path=()):
    """Return the paths to all values in nested mappings."""
    found = [path] if path else []
    for key, value in content.items() if isinstance(content, dict) else ():
        found += places(value, (*path, key))
    return found


def changed(content, path, value, remove):
    made = copy.deepcopy(content)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made


def check_of(folder, name, text):
    """Check an experiment with another text in the place of one of its files, and put that back."""
    path = folder / name
    before = path.read_bytes()
    listed = sorted(folder.rglob("*"))
    try:
        path.write_text(text, errors="surrogatepass")
        return run("check", folder / "s3d.yml")
    finally:
        path.write_bytes(before)
        assert sorted(folder.rglob("*")) == listed


def settings_of_files(folder, draw):
    name = draw(st.sampled_from(["s3d.yml", "task.yml", "space.json"]))
    content = yaml.safe_load((folder / name).read_text())
    path = draw(st.sampled_from(places(content)))
    return name, changed(content, path, draw(values), draw(st.integers(0, 9)) == 0)


def one_wrong_setting(folder, data):
    name, content = settings_of_files(folder, data.draw)
    try:
        text = json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content)
    except (ValueError, yaml.YAMLError):
        return
    assert_refused_or_fine(*check_of(folder, name, text))


def one_damaged_file(folder, data):
    name = data.draw(st.sampled_from(["s3d.yml", "task.yml", "space.json"]))
    text = (folder / name).read_text()
    place = data.draw(st.integers(0, len(text)))
    what = data.draw(st.one_of(snippets, st.text(max_size=5), st.just(text)))
    cut = data.draw(st.integers(0, 20))
    assert_refused_or_fine(*check_of(folder, name, text[:place] + what + text[place + cut :]))


@few
@given(st.data())
def test_a_wrong_setting(folder, data):
    one_wrong_setting(folder, data)


@few
@given(st.data())
def test_a_damaged_file(folder, data):
    one_damaged_file(folder, data)


@pytest.mark.slow
@many
@given(st.data())
def test_thousands_of_wrong_settings(folder, data):
    one_wrong_setting(folder, data)


@pytest.mark.slow
@many
@given(st.data())
def test_thousands_of_damaged_files(folder, data):
    one_damaged_file(folder, data)


words = st.one_of(
    st.sampled_from(
        ["--input", "1,3,8,8", "1,1", "-1,3", "99999999999,9999999", "--set", "a=!!int ''", "a=&a [*a]", "a"]
    ),
    st.sampled_from(
        ["--json", "--to", "--keep", "newest", "--store", "s3d.yml", "x" * 300, "a\x00b", "/", "", "--seeds", "verify"]
    ),
    st.text(max_size=6),
)


@few
@given(st.sampled_from(["check", "inspect", "export", "store"]), st.lists(words, max_size=4))
def test_words_that_are_none(folder, command, given_words):
    with contextlib.chdir(folder):
        assert_refused_or_fine(*run(command, *given_words))


@few
@given(st.dictionaries(st.sampled_from([*small_task.NAMES, "step", "lineage", "params", "macs", "x"]), scalars))
def test_parameters_of_a_trial(parameters):
    space = Space.parse(small_task.SPACE)
    with contextlib.suppress(S3DError):
        parse_spec(parameters, space)


@few
@given(st.dictionaries(st.text(max_size=4), values, max_size=3))
def test_search_spaces(entries):
    with contextlib.suppress(S3DError):
        Space.parse(entries)


numbers = st.one_of(scalars, st.lists(scalars, max_size=3))


@few
@given(st.data())
def test_calls_of_python(data):
    """What is no network, policy or scheme raises an error of this package, as its docstring says."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
    graph = s3d.trace(model, torch.zeros(2, 4))
    policy = data.draw(st.sampled_from([s3d.TopK, s3d.TopFraction, s3d.Knapsack]))
    with contextlib.suppress(S3DError):
        made = policy(data.draw(numbers))
        s3d.select(s3d.new_neurons(model, graph), graph, made, copies=data.draw(numbers), c=data.draw(numbers))
    with contextlib.suppress(S3DError):
        s3d.plan_from_copies(
            graph, {data.draw(st.sampled_from(["0", "2", "x"])): data.draw(st.just(torch.ones(8)) | numbers)}
        )
    with contextlib.suppress(S3DError):
        plan = s3d.plan_from_copies(graph, {"0": torch.full((8,), 2)})
        s3d.split(model, graph, plan, epsilon=data.draw(numbers))
    with contextlib.suppress(S3DError):
        s3d.trace(model, data.draw(st.just(torch.zeros(2, 5)) | scalars))


def test_what_exits_in_a_factory_is_an_error(tmp_path):
    path = small_task.write(tmp_path, {"model": {"factory": "exits:make"}})
    Path(tmp_path, "exits.py").write_text("import sys\n\ndef make():\n    sys.exit(0)\n")
    code, out, err = run("check", path)
    assert_refused(code, out, err)
    assert "SystemExit: 0 (exits.py:4)" in err
