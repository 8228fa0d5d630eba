import pytest
import torch

from nni_s3d.growth.graph.width_attributes import WidthAttribute


@pytest.mark.parametrize(
    ("module", "element", "name"),
    [("layer1.0", None, "layer1.0.width"), ("layer1.0", 2, "layer1.0.width[2]"), ("", None, "width")],
)
def test_attributes_are_called_as_in_the_code(module, element, name):
    assert str(WidthAttribute(module, "width", element, torch.zeros(1, 2))) == name
