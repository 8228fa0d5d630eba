import json
import re
import subprocess
import sys

import pytest
import torch

from nni_s3d.errors import ReportError
from nni_s3d.export import command as command_module
from nni_s3d.export.command import command
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from nni_s3d.search.stored import stored_networks
from tests import small_task


def test_a_trial_of_nni_becomes_a_folder_that_loads_itself(experiment, finished, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra export, is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, of the extra export, is not installed")
    to = tmp_path / "best"
    assert command("abcd1234", to, trial="trial1", experiments_dir=experiment.root) == 0
    names = ["model.safetensors", "model.pt2", "model.onnx", "model.json", "README.md"]
    assert capsys.readouterr().out.split() == [str(to / name) for name in names]
    told, (parameters, metrics) = json.loads((to / "model.json").read_text()), finished[1][1]
    assert told["metrics"] == metrics
    assert told["widths"] == {name: parameters[name] for name in told["widths"]}
    assert told["from"]["trial"] == "trial1"
    for snippet in re.findall("```python\n(.*?)```", (to / "README.md").read_text(), re.DOTALL):
        subprocess.run(
            [sys.executable, "-c", snippet + "\nassert 'model' in dir() or outputs.shape == (4, 10)"],
            cwd=to,
            check=True,
        )


def test_formats_may_be_chosen(finished, tmp_path):
    assert command(str(finished[0]), tmp_path, formats=["pt2"]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "model.json", "model.pt2"]
    assert "onnx" not in (tmp_path / "README.md").read_text()
    best = max(stored_networks(Store(str(finished[0]))), key=lambda network: network.metrics["default"])
    assert json.loads((tmp_path / "model.json").read_text())["from"]["trial"] == best.key
    model = torch.export.load(tmp_path / "model.pt2").module()
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_a_missing_package_is_an_error_only_where_it_was_asked_for(finished, tmp_path, monkeypatch, capsys):
    written = command_module.write

    def without_onnx(model, shape, kind, folder):
        if kind == "onnx":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return written(model, shape, kind, folder)

    monkeypatch.setattr(command_module, "write", without_onnx)
    assert command(str(finished[0]), tmp_path) == 0
    missing = 'onnx needs onnxruntime: pip install "nni_s3d[export]"'
    assert capsys.readouterr().err.strip() == f"not written: {missing}"
    with pytest.raises(ReportError, match=re.escape(missing)):
        command(str(finished[0]), tmp_path, formats=["onnx"])


def test_a_folder_that_is_a_file_is_named(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="file: expected a folder to write to, got: File exists"):
        command(str(finished[0]), tmp_path / "file")


def test_code_that_a_store_names_runs_only_if_the_user_names_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = small_task.write(tmp_path, {"model": {"factory": "tests.factories:residual", "classes": 10}}, steps=0)
    space = {"stem": {"_type": "quniform", "_value": [4, 32, 1]}}
    (tmp_path / "space.json").write_text(json.dumps(space))
    store = Store(str(tmp_path / "s"))
    list(run(read_experiment(path), store))
    task = store.read_json("task.json")
    store.write_json("task.json", {**task, "model": {"factory": "os:mkdir", "path": "trapped"}})
    with pytest.raises(ReportError, match="export: expected --factory os:mkdir, since this runs code that the store"):
        command(store.url, tmp_path / "to")
    with pytest.raises(ReportError, match=r"--factory: expected os:mkdir, .* got tests.factories:residual"):
        command(store.url, tmp_path / "to", factory="tests.factories:residual")
    assert not (tmp_path / "trapped").exists()
    store.write_json("task.json", task)
    assert command(store.url, tmp_path / "to", formats=["safetensors"], factory="tests.factories:residual") == 0
