import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import nni_s3d as s3d
from nni_s3d.errors import ReportError
from nni_s3d.export import formats
from tests.cases import BY_NAME, measured


@pytest.fixture
def grown():
    """A network that has grown, with its factory."""
    case = BY_NAME["conv-bn-relu"]
    run = measured(case)
    plan = s3d.select(run.spectrum, run.graph, s3d.TopFraction(0.5))
    model = s3d.split(run.model, run.graph, plan, 0.1).model.float().eval()
    return model, case.inputs().shape[1:], case.model


def test_weights_are_read_by_load_grown(grown, tmp_path):
    model, shape, factory = grown
    path = formats.write(model, shape, "safetensors", tmp_path)
    again = s3d.load_grown(lambda: factory().float(), path).eval()
    inputs = torch.randn(3, *shape)
    torch.testing.assert_close(again(inputs), model(inputs), rtol=0, atol=0)


def test_a_program_runs_without_this_package_on_any_number_of_samples(grown, tmp_path):
    model, shape, _ = grown
    path = formats.write(model, shape, "pt2", tmp_path)
    inputs = torch.randn(7, *shape)
    torch.save(inputs, tmp_path / "inputs.pt")
    code = f"""
import sys, json, torch
model = torch.export.load({str(path)!r}).module()
outputs = model(torch.load({str(tmp_path / "inputs.pt")!r}))
assert not any(name.startswith("nni_s3d") for name in sys.modules)
print(json.dumps(outputs.tolist()))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    torch.testing.assert_close(torch.tensor(json.loads(printed)), model(inputs), rtol=1e-4, atol=1e-5)


def test_onnx_computes_the_same_on_any_number_of_samples(grown, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript, of the extra export, is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra export, is not installed")
    model, shape, _ = grown
    path = formats.write(model, shape, "onnx", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]  # with its weights
    session = runtime.InferenceSession(path)
    inputs = torch.randn(7, *shape)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), model(inputs), rtol=1e-4, atol=1e-5)


class Stubborn(nn.Module):
    """What torch.export cannot follow."""

    def forward(self, inputs):
        return inputs * 2 if float(inputs.sum()) > 0 else inputs


def test_a_network_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(ReportError, match=r"model.pt2: expected a network that can be written as pt2, got ") as caught:
        formats.write(Stubborn(), torch.Size([3]), "pt2", tmp_path)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_what_was_written_is_compared(grown, tmp_path, monkeypatch):
    model, shape, _ = grown
    wrong = nn.Sequential(model, nn.Hardtanh(-1e-3, 1e-3))
    written = formats._program(wrong, shape)
    monkeypatch.setattr(formats, "_program", lambda *_: written)
    with pytest.raises(ReportError, match=r"expected the outputs of the network to 0.0001, got "):
        formats.write(model, shape, "pt2", tmp_path)
    assert not any(tmp_path.iterdir())
