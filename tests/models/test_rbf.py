import torch

from nni_s3d.models import rbf
from tests.models.contract import ModelContract, widths_of


class TestRBF(ModelContract):
    CASES = (("rbf", lambda: rbf((3,)), (5, 1)),)
    REFUSED = frozenset({"output"})


def test_it_has_one_width():
    assert widths_of(rbf((3,)), 5, 1) == {"neurons": 3}


def test_it_is_a_sum_of_bumps():
    torch.manual_seed(0)
    model, x = rbf((3,)).double(), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    theta, bias, w = model.neurons.weight[:, 0], model.neurons.bias, model.output.weight[0]
    expected = sum(w[i] * torch.exp(-((theta[i] * x + bias[i]) ** 2) / 2) for i in range(3))
    torch.testing.assert_close(model(x), expected)


def test_its_parameters_have_a_variance_of_three():
    torch.manual_seed(0)
    for parameter in rbf((20_000,)).requires_grad_(False).parameters():
        assert abs(float(parameter.mean())) < 0.05
        assert abs(float(parameter.var()) - 3) < 0.1
