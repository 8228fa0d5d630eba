import pytest

from nni_s3d.growth.modules import evaluation_mode
from tests.cases import BY_NAME


def test_evaluation_mode_restores_every_mode_after_an_error():
    model = BY_NAME["conv-bn-relu"].model()
    model[1].train()

    def fail() -> None:
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model] == [index == 1 for index in range(len(model))]
