import torch

from nni_s3d.growth.curvature.autograd_step import is_floating, overwritten, recorded


class Squares:
    """x, y -> x^2 + y, a whole number, x y, with derivatives by hand."""

    def run(self, x, y):
        self.inputs = x, y
        return {"sum": x**2 + y, "count": torch.tensor(3), "product": x * y}

    def linearize(self, cotangents):
        x, (of_sum, of_product) = self.inputs[0], cotangents
        assert of_product is None  # nothing was made of it
        return [2 * x * of_sum, of_sum]


def test_the_backward_pass_goes_through_a_step():
    anchor = torch.zeros((), requires_grad=True)
    x, y = torch.tensor([1.0, 2], requires_grad=True), torch.tensor([3.0, 4], requires_grad=True)
    outputs = recorded(Squares(), anchor, [x, y])
    assert list(outputs) == ["sum", "count", "product"]
    assert outputs["sum"].tolist() == [4, 8]
    assert outputs["sum"].requires_grad
    assert not outputs["count"].requires_grad
    of_x, of_y = torch.autograd.grad(outputs["sum"].sum(), [x, y])
    assert of_x.tolist() == [2, 4]
    assert of_y.tolist() == [1, 1]


def test_values_that_need_no_gradient_are_recorded_by_the_anchor():
    anchor = torch.zeros((), requires_grad=True)
    outputs = recorded(Squares(), anchor, [torch.ones(2), torch.ones(2)])
    assert outputs["sum"].requires_grad


def test_what_is_overwritten_has_the_derivative_of_what_was_written():
    source = torch.ones(3, requires_grad=True)
    target = torch.zeros(3, requires_grad=True) * 1
    written = overwritten(target, 2 * source)
    assert written is target
    assert target.tolist() == [2, 2, 2]
    (gradient,) = torch.autograd.grad(written.sum(), source)
    assert gradient.tolist() == [2, 2, 2]


def test_what_can_have_a_derivative():
    assert is_floating(torch.ones(1))
    assert not is_floating(torch.ones(1, dtype=torch.int64))
    assert not is_floating(1.0)
