import torch

from nni_s3d.growth.surgery import one_block as module
from nni_s3d.growth.surgery.one_block import one_block


def test_tensors_of_every_type_lie_in_one_block_and_apart(monkeypatch):
    monkeypatch.setattr(module, "_LARGE", 1)
    like = {
        "weight": torch.empty(2, 3),
        "mean": torch.empty(3, dtype=torch.float64),
        "seen": torch.empty(2, dtype=torch.bool),
        "count": torch.empty((), dtype=torch.int64),
    }
    shapes = {"weight": torch.Size([5, 3]), "mean": torch.Size([4]), "seen": torch.Size([3]), "count": torch.Size([])}
    tensors = one_block(like, shapes)
    assert {name: (x.shape, x.dtype) for name, x in tensors.items()} == {n: (shapes[n], like[n].dtype) for n in like}
    for number, tensor in enumerate(tensors.values()):
        tensor.fill_(number)
    assert [tensor.unique().tolist() for tensor in tensors.values()] == [[0], [1], [True], [3]]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == 1
    assert all(tensor.is_contiguous() for tensor in tensors.values())


def test_nothing_takes_no_memory():
    assert one_block({}, {}) == {}


def test_tensors_on_another_device_stay_there():
    tensors = one_block({"a": torch.empty(2, 3, device="meta")}, {"a": torch.Size([4, 3])})
    assert (tensors["a"].shape, tensors["a"].device.type) == ((4, 3), "meta")
