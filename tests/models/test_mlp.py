import pytest
from torch import nn

from nni_s3d.errors import ConfigError
from nni_s3d.models import mlp
from tests.models.contract import ModelContract, widths_of


class TestMLP(ModelContract):
    CASES = (("mlp", lambda: mlp((5, 4), in_features=6, activation="SiLU"), (3, 6)),)


def test_hidden_layers_are_numbered():
    assert widths_of(mlp((5, 4, 3), in_features=6), 2, 6) == {"linear1": 5, "linear2": 4, "linear3": 3}


def test_the_activation_is_one_of_pytorch():
    assert isinstance(mlp((3,), activation="SiLU").act1, nn.SiLU)
    with pytest.raises(ConfigError, match="activation: expected the name of a class"):
        mlp((3,), activation="Nope")
