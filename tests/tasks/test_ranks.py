import pytest
import torch

from nni_s3d.errors import ConfigError
from nni_s3d.tasks import ranks
from tests.processes import environment, side_by_side


def test_one_process_has_nobody_to_ask(monkeypatch):
    for name, value in environment(0, 1, 1).items():
        monkeypatch.setenv(name, value)
    with ranks.joined(torch.device("cpu")):
        assert (ranks.rank(), ranks.world_size(), ranks.from_first("x")) == (0, 1, "x")


def talk():
    mine = {"rank": ranks.rank(), "weights": [torch.full((2,), float(ranks.rank()))]}
    given = ranks.from_first(mine)
    return ranks.rank(), ranks.world_size(), given["rank"], given["weights"][0].tolist()


def test_what_the_first_process_gives_reaches_all():
    assert side_by_side(talk, 3) == [(rank, 3, 0, [0.0, 0.0]) for rank in range(3)]
    assert ranks.world_size() == 1


def leave():
    if ranks.rank() == 0:
        raise ValueError("gone")
    return ranks.from_first(None)


def test_nobody_waits_for_a_process_that_has_gone():
    first, second = side_by_side(leave)
    assert isinstance(first, ValueError)
    assert isinstance(second, RuntimeError)


@pytest.mark.parametrize(("device", "got"), [("cuda:1", "cuda:1"), ("cuda", "1 of them")])
def test_every_process_needs_a_gpu_of_its_own(monkeypatch, device, got):
    for name, value in environment(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if device == "cuda:1" else 1)
    expected = f"device: expected auto or cuda, and a GPU for each of 2 processes, got {got}"
    with pytest.raises(ConfigError, match=expected), ranks.joined(torch.device(device)):
        pass
