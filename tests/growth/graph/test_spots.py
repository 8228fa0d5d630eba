import pytest
import torch
from torch import Tensor, nn

from nni_s3d.growth.graph import spots
from nni_s3d.growth.graph.spots import Spot, Spots
from nni_s3d.growth.graph.tracer import Tracer


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return helper(x)


def helper(x: Tensor) -> Tensor:
    if x.shape[1] != 2:
        raise ValueError("two are wanted")
    return torch.tanh(x)


TRACER = """
class Found(Tracer):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tanh, torch.nn.functional.linear):
            self.spots.append(spots.Spots(self._model).of_call())
        return func(*args, **(kwargs or {}))
"""


def test_the_module_and_the_line_of_a_call():
    scope = {"Tracer": Tracer, "torch": torch, "spots": spots}
    exec(compile(TRACER, f"{spots._OURS}found.py", "exec"), scope)  # code that follows a run is not the model's
    tracer = scope["Found"](nn.Sequential(Inner(), nn.Linear(2, 2)), {})
    tracer.spots = []
    tracer.run(torch.ones(3, 2))
    of_layer, of_tanh, of_last = tracer.spots
    assert (of_layer.module, of_layer.source) == ("0.layer", "x = self.layer(x)")
    assert (of_tanh.module, of_tanh.source) == ("0", "return torch.tanh(x)")
    assert of_tanh.line.startswith("test_spots.py:")
    assert str(of_tanh) == f" in 0 ({of_tanh.line})"
    assert of_tanh.body[0] is helper.__code__
    assert (of_last.module, of_last.line) == ("1", "")
    assert str(of_last) == " in 1"


def test_code_beside_pytorch_is_not_its_own():
    """The folder of torchvision begins with the name of that of torch."""
    scope = {"torch": torch, "nn": nn}
    code = """
class Beside(nn.Module):
    def forward(self, x):
        raise ValueError("no")
"""
    exec(compile(code, f"{spots._TORCH[:-1]}vision/beside.py", "exec"), scope)
    model = scope["Beside"]()
    with pytest.raises(ValueError, match="no") as found:
        model(torch.ones(1))
    assert Spots(model).of_error(found.value).line == "beside.py:4"


def test_the_line_of_an_error():
    model = nn.Sequential(Inner())
    model[0].layer = nn.Linear(2, 3)
    try:
        model(torch.ones(3, 2))
    except ValueError as error:
        spot = Spots(model).of_error(error)
    assert (spot.module, spot.source) == ("0", 'raise ValueError("two are wanted")')


def test_the_model_itself():
    assert str(Spot("")) == " in the model"
