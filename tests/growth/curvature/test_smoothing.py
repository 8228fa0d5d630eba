import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_s3d.growth.curvature.smoothing import SMOOTHED, bump, elementwise_name, is_smoothed, ramp, smoothed
from tests.reference import Softened

BETA = 3.0
X = torch.linspace(-7.03, 7.04, 401, dtype=torch.float64)  # no point on a kink
SLOPE = torch.tensor([0.25], dtype=torch.float64)

CALLS = {  # the function, its further arguments, its keywords, the module it stands for
    "relu": (F.relu, (), {}, nn.ReLU()),
    "relu6": (F.relu6, (), {}, nn.ReLU6()),
    "leaky_relu": (F.leaky_relu, (), {}, nn.LeakyReLU()),
    "leaky_relu, steep": (F.leaky_relu, (0.4,), {}, nn.LeakyReLU(0.4)),
    "leaky_relu, by name": (F.leaky_relu, (), {"negative_slope": 0.4}, nn.LeakyReLU(0.4)),
    "hardtanh": (F.hardtanh, (), {}, nn.Hardtanh()),
    "hardtanh, wide": (F.hardtanh, (-2.0,), {"max_val": 3.5}, nn.Hardtanh(-2.0, 3.5)),
    "hardsigmoid": (F.hardsigmoid, (), {}, nn.Hardsigmoid()),
    "hardswish": (F.hardswish, (), {}, nn.Hardswish()),
    "threshold": (F.threshold, (0.0, 0.0), {}, nn.Threshold(0.0, 0.0)),
    "threshold, a jump": (F.threshold, (0.1, -2.3), {}, nn.Threshold(0.1, -2.3)),
    "softshrink": (F.softshrink, (1.3,), {}, nn.Softshrink(1.3)),
    "rrelu": (F.rrelu, (0.1, 0.5), {}, nn.RReLU(0.1, 0.5).eval()),
    "prelu": (F.prelu, (SLOPE,), {}, nn.PReLU(init=0.25)),
}

WRITTEN = {  # functions that people write activations with, further arguments, and kinks: (where, height)
    "hardshrink": (torch.hardshrink, (1.3,), [(1.3, 1), (-1.3, -1)]),
    "abs": (torch.abs, (), [(0, 2)]),
    "clamp": (torch.clamp, (0,), [(0, 1)]),
    "clamp, below": (torch.clamp, (None, 6), [(6, -1)]),
    "clamp, both": (torch.clamp, (-1, 2.5), [(-1, 1), (2.5, -1)]),
    "clamp, tensors": (torch.clamp, (torch.tensor(-1.0), torch.full_like(X, 2.0)), [(-1, 1), (2, -1)]),
    "clamp, in the wrong order": (torch.clamp, (2, 1), []),
    "clamp_min": (torch.clamp_min, (0.5,), [(0.5, 1)]),
    "clamp_max": (torch.clamp_max, (0.5,), [(0.5, -1)]),
    "maximum": (torch.maximum, (torch.zeros(1, dtype=X.dtype),), [(0, 1)]),
    "minimum": (torch.minimum, (torch.full_like(X, 0.5),), [(0.5, -1)]),
}


def slopes(function, x):
    """Return the value and the first derivative of an element-wise function."""
    x = x.clone().requires_grad_()
    value = function(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def derivatives(function, x):
    """Return the value and two derivatives of an element-wise function."""
    x = x.clone().requires_grad_()
    value = function(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    second = torch.zeros_like(x)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), x)
    return value.detach(), first.detach(), second.detach()


@pytest.mark.parametrize("name", CALLS)
def test_value_and_slope_are_true_and_the_curvature_is_that_of_softplus(name):
    func, args, kwargs, module = CALLS[name]
    kind = name.partition(",")[0]
    value, first, second = derivatives(lambda x: smoothed(kind, BETA, (x, *args), dict(kwargs)), X)
    true_value, true_first = slopes(lambda x: func(x, *args, **kwargs), X)
    _, _, expected = derivatives(Softened(module.double(), BETA), X)
    torch.testing.assert_close(value, true_value, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(first, true_first, rtol=1e-7, atol=1e-14)  # torch's hardsigmoid has 1/6 in float32
    torch.testing.assert_close(second, expected, rtol=1e-9, atol=1e-12)
    assert second.abs().max() > 0.1


@pytest.mark.parametrize("name", WRITTEN)
def test_every_kink_has_a_curvature_of_its_height(name):
    func, args, kinks = WRITTEN[name]
    value, first, second = derivatives(lambda x: smoothed(name.partition(",")[0], BETA, (x, *args), {}), X)
    true_value, true_first = slopes(lambda x: func(x, *args), X)
    assert torch.equal(value, true_value)
    assert torch.equal(first, true_first)
    expected = sum((height * bump(X - at, BETA) for at, height in kinks), torch.zeros_like(X))
    torch.testing.assert_close(second, expected, rtol=1e-9, atol=1e-12)


def test_every_smoothed_activation_is_covered():
    assert {name.partition(",")[0] for name in (*CALLS, *WRITTEN)} == set(SMOOTHED)


def test_functions_are_known_by_their_other_names():
    x, y = torch.ones(2), torch.zeros(2)
    for name, args, known in (
        ("clip", (x, 0), "clamp"),
        ("absolute", (x,), "abs"),
        ("max", (x, y), "maximum"),
        ("max", (x, 1), "max"),
        ("min", (x,), "min"),
        ("fmin", (x, y), "minimum"),
        ("relu", (x,), "relu"),
    ):
        assert elementwise_name(name, args, {}) == known
    assert elementwise_name("max", (x,), {"other": y}) == "maximum"


def test_whole_numbers_have_no_kinks():
    assert is_smoothed("abs", (torch.ones(2),), {})
    assert is_smoothed("relu", (), {"input": torch.ones(2)})
    assert not is_smoothed("abs", (torch.ones(2, dtype=torch.int64),), {})
    assert not is_smoothed("tanh", (torch.ones(2),), {})


@pytest.mark.parametrize("beta", [0.5, 3.0, 20.0])
def test_the_second_derivative_of_the_ramp_is_that_of_softplus(beta):
    value, first, second = derivatives(lambda x: ramp(x, beta), X)
    softplus = derivatives(lambda x: F.softplus(x, beta, threshold=1e9), X)[2]
    assert torch.equal(value, X.clamp(min=0))
    assert torch.equal(first, (X > 0).double())
    torch.testing.assert_close(second, softplus, rtol=1e-9, atol=1e-12)


def test_the_bump_has_area_one():
    x = torch.linspace(-20, 20, 40_001, dtype=torch.float64)
    second = derivatives(lambda x: ramp(x, BETA), x)[2]
    assert torch.trapezoid(second, x).item() == pytest.approx(1, abs=1e-9)


def test_at_the_kink_the_slope_is_that_of_torch():
    zero = torch.zeros(1, dtype=torch.float64)
    for func in (F.relu, F.relu6, F.leaky_relu):
        first = slopes(lambda x, func=func: smoothed(func.__name__, BETA, (x,), {}), zero)[1]
        assert torch.equal(first, slopes(func, zero)[1])


@pytest.mark.parametrize("inplace", [False, True])
def test_the_input_is_left_as_it_is(inplace):
    x = X.clone()
    smoothed("hardswish", BETA, (x,), {"inplace": inplace})
    assert torch.equal(x, X)


@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 5), (4, 3, 5, 2)])
def test_prelu_slopes_belong_to_the_channels(shape):
    slopes = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64) if len(shape) > 1 else SLOPE
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(smoothed("prelu", BETA, (x, slopes), {}), F.prelu(x, slopes))


def test_the_slope_of_prelu_gets_its_gradient():
    slope = SLOPE.clone().requires_grad_()
    (found,) = torch.autograd.grad(smoothed("prelu", BETA, (X, slope), {}).sum(), slope)
    (expected,) = torch.autograd.grad(F.prelu(X, slope).sum(), slope)
    torch.testing.assert_close(found, expected)


def test_float32_stays_float32():
    for name, (_, args, kwargs, _) in CALLS.items():
        x = X.float()
        arguments = [a.float() if isinstance(a, torch.Tensor) else a for a in args]
        out = smoothed(name.partition(",")[0], BETA, (x, *arguments), dict(kwargs))
        assert out.dtype == torch.float32, name
