import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nni_s3d.growth.graph.filled import FilledTensors
from nni_s3d.growth.graph.functions import canonical_name
from nni_s3d.growth.modules import tensors


class Follows(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.filled = FilledTensors()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.filled.follow(canonical_name(func), args, tensors(out))
        return out


def changed(change) -> Tensor:
    x = torch.zeros(2, 3)
    change(x)
    return x


CASES = {
    "zeros": (lambda: torch.zeros(2, 3), True),
    "new ones": (lambda: torch.rand(2).new_ones(3), True),
    "full": (lambda: torch.full((2,), 0.5), True),
    "of another type": (lambda: torch.zeros(2).double().to(torch.float32), True),
    "none at all": (lambda: torch.zeros(0), True),
    "numbers": (lambda: torch.arange(3), False),
    "by chance": (lambda: torch.tensor([1.0, 1.0]), False),
    "a result": (lambda: torch.zeros(2) + 1, False),
    "changed in place": (lambda: changed(lambda x: x.add_(1)), False),
    "an entry that is set": (lambda: changed(lambda x: x.__setitem__(0, 0)), False),
    "a view that is changed": (lambda: changed(lambda x: x[0].add_(1)), False),
}


@pytest.mark.parametrize("name", CASES)
def test_what_holds_one_number_since_it_was_made(name):
    make, filled = CASES[name]
    with Follows() as follows:
        x = make()
    assert (x in follows.filled) == filled
