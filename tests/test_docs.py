"""Every code block of the documentation runs, and what it is said to print is what it prints."""

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import nni_s3d
from nni_s3d.cli import main, parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# What these pages run is not Python: the README's test has their commands, or they have a test below.
COMMANDS = ["install.md", "first_run.md", "strategies.md", "going_on.md", "cluster.md"]


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of every fenced block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def test_every_page_with_code_is_tested():
    with_code = {page for page in PAGES if any(language in ("python", "sh", "yaml") for language, _ in blocks(page))}
    assert with_code == {"python.md", "own_model.md", "register.md", *COMMANDS}


@pytest.mark.parametrize("page", ["python.md", "register.md"])
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope, printed = {}, [""]
    for language, text in blocks(page):
        if language == "python":
            printed.append(output_of(text, page, scope))
        elif language == "text":
            assert text.strip() in printed[-1]
    for result in re.findall(r"^print\(.*\)  # (.*)$", (DOCS / page).read_text(), re.MULTILINE):
        assert page != "register.md" or result in "".join(printed)


def output_of(text: str, page: str, scope: dict) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, page, "exec"), scope)
    return out.getvalue()


def test_own_model_runs_from_file_to_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = [""]
    for language, text in blocks("own_model.md"):
        if name := re.match(r"# (\S+\.(?:py|yml))\n", text):
            Path(name[1]).write_text(text)
        elif language == "python":
            printed.append(output_of(text, "net.py", {}))
        elif language == "sh":
            command = re.sub(r"^nni-s3d", "python -m nni_s3d.cli", text, flags=re.MULTILINE)
            script = f'set -e\nexport PYTHONPATH="$PWD:$PYTHONPATH"\n{command}'
            done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
        elif language == "text":
            assert text == printed[-1]
    assert any("step 1: accuracy" in text for text in printed)


def test_commands_are_those_of_the_program():
    readme = (ROOT / "README.md").read_text()
    for page in COMMANDS:
        for line in "".join(text for language, text in blocks(page) if language == "sh").splitlines():
            words = shlex.split(line)
            if words[0] == "nni-s3d" and "--help" not in words:
                parser().parse_args(words[1:])
            elif words[0] != "nni-s3d":
                assert line in readme
            assert all(any(ROOT.glob(word)) for word in words if word.startswith("configs/"))


def test_the_log_of_a_trial_is_as_it_is_shown(tmp_path, caplog):
    """Numbers aside, which a processor and other versions of PyTorch may change."""
    config = yaml.safe_load((ROOT / "configs/digits/s3d.yml").read_text())
    config["tuner"]["classArgs"] |= {"steps": 2, "epochs": 2}
    for key in ("searchSpaceFile", "trialCodeDirectory"):
        config[key] = str((ROOT / "configs/digits" / config[key]).resolve())
    (tmp_path / "s3d.yml").write_text(yaml.safe_dump(config))
    with caplog.at_level(logging.INFO), contextlib.redirect_stdout(io.StringIO()):
        assert main(["grow", str(tmp_path / "s3d.yml"), "--store", str(tmp_path / "store")]) == 0
    shown = next(text for _, text in blocks("first_run.md") if text.startswith("split"))
    logged = {without_numbers(message) for message in caplog.messages}
    assert {without_numbers(line) for line in shown.splitlines()} <= logged


def without_numbers(line: str) -> str:
    return re.sub(r"-?\d[\d,.]*(e-?\d+)?", "N", line)


def test_the_picture_is_what_its_script_draws():
    spec = importlib.util.spec_from_file_location("neuron_picture", DOCS / "neuron_picture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.picture() == (DOCS / "neuron.svg").read_text()


@pytest.mark.parametrize("page", ["../README.md", *PAGES])
def test_links_lead_to_files(page):
    text = (DOCS / page).read_text()
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    missing = [target for target in targets if not ((DOCS / page).parent / target).exists()]
    assert not missing


def test_the_reference_has_every_module_and_every_public_name():
    shown = set(re.findall(r"^::: (\S+)$", "".join(path.read_text() for path in DOCS.glob("api/*.md")), re.MULTILINE))
    modules = {module.name for module in pkgutil.walk_packages(nni_s3d.__path__, "nni_s3d.") if not module.ispkg}
    assert {name for name in modules if not any(f"{name}.".startswith(f"{root}.") for root in shown)} == set()
    names = re.findall(r"\[(\w+)\]\[(nni_s3d[\w.]+)\]", (DOCS / "api/index.md").read_text())
    assert {name for name, _ in names} == set(nni_s3d.__all__)
    for name, path in names:
        module, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(nni_s3d, name)


def test_the_papers_items_are_where_the_theory_says():
    rows = re.findall(r"^\| .* \| (\[.*\)) \| (`.*) \|$", (DOCS / "theory.md").read_text(), re.MULTILINE)
    assert len(rows) > 20
    for links, names in rows:
        texts = [(DOCS / path).read_text() for path in re.findall(r"\]\((\S+?)\)", links)]
        for name in re.findall(r"`(\w+)", names):
            if name != "paper":
                assert any(re.search(rf"(def|class) {name}\b", text) for text in texts), name
