import pytest
import torch

from nni_s3d.growth.selection.on_demand import OnDemand


def test_tensors_are_computed_once_when_they_are_asked_for():
    calls = []

    def compute(name):
        calls.append(name)
        return torch.zeros(1)

    tensors = OnDemand({"a": lambda: compute("a"), "b": lambda: compute("b")})
    assert (list(tensors), len(tensors), "b" in tensors, calls) == (["a", "b"], 2, True, [])
    assert tensors["a"] is tensors["a"]
    assert calls == ["a"]
    with pytest.raises(KeyError, match="c"):
        tensors["c"]
