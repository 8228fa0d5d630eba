"""The house stays easy to enter: short files and functions, and a test for every file under the same path."""

import ast
from pathlib import Path

import pytest

import nni_s3d

ROOT = Path(nni_s3d.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PAPER = sorted((TESTS.parent / "paper").glob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 250, 40
# Tables and constants, which the tests of their readers look at.
WITHOUT_LOGIC = {"__init__.py", "solver_names.py", "cost_names.py"}


def named(path: Path) -> str:
    return str(path.relative_to(TESTS.parent))


@pytest.mark.parametrize("path", [*FILES, *PAPER], ids=named)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in WITHOUT_LOGIC], ids=named)
def test_every_file_has_a_test_under_the_same_path(path):
    test = TESTS / path.relative_to(ROOT).parent / f"test_{path.name}"
    assert test.exists(), f"expected {test.relative_to(TESTS.parent)}"


def test_every_test_is_of_a_file():
    about_more = {
        "house",
        "notebook",
        "web_ui",
        "imports",
        "readme",
        "docs",
        "docstrings",
        "gpu",
        "gpu_script",
        "split_structures",
        "killed",
        "damaged",
        "remote",
        "long_run",
        "full_disk",
        "cluster",
        "bad_input",
    }
    for test in TESTS.rglob("test_*.py"):
        if test.stem.removeprefix("test_") not in about_more:
            path = test.relative_to(TESTS).parent / test.name.removeprefix("test_")
            assert (ROOT / path).exists() or (TESTS.parent / path).exists(), (
                f"{test.relative_to(TESTS)} is the test of no file"
            )
