import pytest
import torch

from nni_s3d.tasks.data import Clouds, Images
from nni_s3d.tasks.data.image_files import ImageFiles
from nni_s3d.tasks.data.samples import Samples, View


@pytest.mark.parametrize("kind", [Images, Clouds, ImageFiles])
def test_every_kind_of_set_has_what_a_loader_asks(kind):
    asked = {name for name in vars(Samples) if not name.startswith("_")} | {"__len__", "__getitem__"}
    assert {"shape", "statistics", "batches"} < asked
    assert all(hasattr(kind, name) or name in kind.__annotations__ for name in asked)


def test_a_view_shows_all_samples_as_they_are_unless_told_otherwise():
    view = View(None)
    assert torch.equal(view.shown(torch.arange(5)), torch.arange(5))
    assert (view.pad, view.flip, view.scale, view.shift) == (0, False, 1.0, 0.0)
    assert torch.device(view.device).type == "cpu"
