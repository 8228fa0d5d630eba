"""The import rules of the layers: data flows one way, and the framework stays at the edge."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import nni_s3d
from tests.fresh_process import loaded_by

ROOT = Path(nni_s3d.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# From the top down: a file imports from its own layer and from those below it. Two rooms on one line do not know each
# other.
LAYERS = (
    ("cli",),
    ("compare", "export"),
    ("report", "plugin", "testing"),
    ("search",),
    ("tasks",),
    ("models", "growth"),
    ("config",),
    ("errors",),
)
GROWTH_LAYERS = (
    ("loop",),
    ("growth_step",),
    ("settings", "trace"),
    ("rehearsal",),
    ("surgery", "pruning"),
    ("selection", "curvature"),
    ("eigen", "graph"),
    ("modules", "seeds", "text_table"),
)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(path: Path) -> str:
    """Return the dotted name of a file's module, without nni_s3d."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {dotted(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Return the dotted names of all that a file imports, wherever in it: inside functions and for types too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{named(path)}: expected absolute imports"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def ours(path: Path) -> set[str]:
    """Return the modules of this package that a file imports."""
    found = set()
    for name in imported(path):
        if name == "nni_s3d" or name.startswith("nni_s3d."):
            module = name.removeprefix("nni_s3d").lstrip(".")
            while module not in MODULES:  # the last word may be a class or function
                module = module.rpartition(".")[0]
            found.add(module)
    return found - {dotted(path)}


def layer_of(module: str, layers: tuple[tuple[str, ...], ...]) -> tuple[int, str] | None:
    """Return the number of a module's layer, from the top, and its room there."""
    room = module.partition(".")[0]
    return next(((n, room) for n, rooms in enumerate(layers) if room in rooms), None)


def identifiers(path: Path) -> set[str]:
    """Return all names and attributes in the code of a file; comments and strings do not count."""
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def below(folder: str) -> list[Path]:
    return [path for path in FILES if path.is_relative_to(ROOT / folder)]


def test_there_is_something_to_check():
    assert {dotted(path) for path in below("growth")} >= {"growth.selection.schemes", "growth.graph.rules.layers"}
    assert "torch.Tensor" in imported(ROOT / "growth" / "selection" / "schemes.py")
    assert "Module" in identifiers(ROOT / "growth" / "surgery" / "split.py")
    assert "growth.trace" in ours(ROOT / "growth" / "loop.py")


def test_no_two_files_import_each_other_in_a_circle():
    try:
        TopologicalSorter({module: ours(path) for module, path in MODULES.items()}).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' -> '.join(error.args[1])}") from None


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_run_down_the_layers(path):
    module = dotted(path)
    growth = module.startswith("growth.")
    layers = GROWTH_LAYERS if growth else LAYERS
    mine = layer_of(module.removeprefix("growth."), layers)
    if mine is None:
        assert module in ("", "growth"), f"{named(path)}: expected it in a layer"
        return
    for name in ours(path):
        if growth and not name.startswith("growth."):
            continue  # `test_growth_imports_only_...` looks at these
        other = layer_of(name.removeprefix("growth.") if growth else name, layers)
        assert other is not None, f"{named(path)} imports {name}, which is in no layer"
        assert other[0] > mine[0] or other == mine, f"{named(path)} imports {name}, which is not below it"


@pytest.mark.parametrize("path", below("growth"), ids=named)
def test_growth_imports_only_torch_numpy_scipy_and_itself(path):
    allowed = ("torch", "numpy", "scipy", "nni_s3d.growth", "nni_s3d.errors")
    for name in imported(path):
        ours = any(name == root or name.startswith(f"{root}.") for root in allowed)
        assert ours or name.partition(".")[0] in sys.stdlib_module_names, f"{named(path)} imports {name}"


@pytest.mark.parametrize("path", [*below("growth/eigen"), *below("growth/selection")], ids=named)
def test_solvers_and_choices_never_see_a_module(path):
    if path.name not in ("priorities.py", "new_neurons.py", "random_splits.py"):  # |theta| is read off the model
        assert not {"nn", "Module"} & identifiers(path)
        assert not any(module.startswith("torch.nn") for module in imported(path))


@pytest.mark.parametrize("path", below("growth/surgery"), ids=named)
def test_surgery_never_sees_a_loss(path):
    found = identifiers(path)
    assert not {name for name in found if "loss" in name.lower()}
    assert not {"backward", "grad", "autograd"} & found


@pytest.mark.parametrize("path", FILES, ids=named)
def test_only_the_plugin_imports_nni(path):
    if path.parent.name != "plugin":
        assert not {name for name in imported(path) if name == "nni" or name.startswith("nni.")}


def test_importing_the_package_loads_no_framework():
    heavy = {"nni", "torchvision", "matplotlib", "pandas", "sklearn"}
    assert not heavy & loaded_by("import nni_s3d")


def test_every_public_name_is_there():
    assert sorted(nni_s3d.__all__) == list(nni_s3d.__all__)
    for name in nni_s3d.__all__:
        assert getattr(nni_s3d, name).__doc__
