"""The import rules of the layers: data flows one way, and the framework stays at the edge."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nni_s3d

ROOT = Path(nni_s3d.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
GROWTH = [path for path in FILES if path.parent.name == "growth"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{named(path)}: expected absolute imports"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def identifiers(path: Path) -> set[str]:
    """Return all names and attributes in the code of a file; comments and strings do not count."""
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_there_is_something_to_check():
    assert {path.name for path in GROWTH} >= {"schemes.py", "eigen.py", "selection.py", "surgery.py", "loop.py"}
    assert "torch.Tensor" in imported(ROOT / "growth" / "schemes.py")
    assert "Module" in identifiers(ROOT / "growth" / "surgery.py")


@pytest.mark.parametrize("path", GROWTH, ids=named)
def test_growth_imports_only_torch_numpy_scipy_and_itself(path):
    allowed = ("torch", "numpy", "scipy", "nni_s3d.growth", "nni_s3d.errors")
    for name in imported(path):
        ours = any(name == root or name.startswith(f"{root}.") for root in allowed)
        assert ours or name.partition(".")[0] in sys.stdlib_module_names, f"{named(path)} imports {name}"


@pytest.mark.parametrize("name", ["eigen.py", "krylov.py", "lanczos.py", "rayleigh.py", "schemes.py", "selection.py"])
def test_solvers_and_choices_never_see_a_module(name):
    path = ROOT / "growth" / name
    assert not {"nn", "Module"} & identifiers(path)
    assert not any(module.startswith("torch.nn") for module in imported(path))


def test_surgery_never_sees_a_loss():
    found = identifiers(ROOT / "growth" / "surgery.py")
    assert not {name for name in found if "loss" in name.lower()}
    assert not {"backward", "grad", "autograd"} & found


@pytest.mark.parametrize("path", FILES, ids=named)
def test_only_the_plugin_imports_nni(path):
    if path.parent.name != "plugin":
        assert not {name for name in imported(path) if name == "nni" or name.startswith("nni.")}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_nothing_imports_the_command_line(path):
    if named(path) != "__main__.py":
        names = imported(path)
        assert not {name for name in names if name == "nni_s3d.cli" or name.startswith("nni_s3d.cli.")}


def test_importing_the_package_loads_no_framework():
    program = (
        "import sys, nni_s3d; "
        "print(sorted({'nni', 'torchvision', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert sorted(nni_s3d.__all__) == list(nni_s3d.__all__)
    for name in nni_s3d.__all__:
        assert getattr(nni_s3d, name).__doc__
