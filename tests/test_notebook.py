"""The notebook runs as it is."""

import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "grow.ipynb"


def test_it_runs_and_the_network_grows():
    pytest.importorskip("ipykernel", reason="ipykernel, of the extra test, is not installed")
    client = pytest.importorskip("nbclient", reason="nbclient, of the extra test, is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat, of the extra test, is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        client.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=NOTEBOOK.parent)
    printed = [output.text for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output]
    steps = [line for text in printed for line in text.splitlines() if line.startswith("step ")]
    assert len(steps) == 5
    sizes = [int(line.split("with ")[1].split()[0].replace(",", "")) for line in steps]
    assert sizes == sorted(set(sizes))
    assert any("image/png" in output.get("data", {}) for output in shown)  # what a reader sees without running it
