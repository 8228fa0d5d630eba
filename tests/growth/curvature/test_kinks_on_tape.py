"""Which tensors of a tape have kinks, and what is left out of the curvature of an activation."""

import torch
from torch.nn import functional as F

from nni_s3d.growth.curvature.elementwise_nodes import Elementwise, WithoutKinks, derivatives
from nni_s3d.growth.curvature.kinks_on_tape import KinksOnTape
from nni_s3d.growth.curvature.recorded_call import RecordedCall


def recorded(func, name, *args, given):
    return RecordedCall(func, name, args, {}, beta=3.0, matters=lambda y: y is given)


def activation(kinks, x):
    """Note relu(x) in a book of kinks."""
    call = recorded(F.relu, "relu", x, given=x)
    kinked = kinks.of_result(call)
    node = Elementwise([0], call, lambda x: derivatives(call, x))
    out = node.run(x)
    kinks.note(out, kinked, node)
    return out, node


def test_a_square_reads_the_activation_without_its_kink():
    kinks, x = KinksOnTape(), torch.randn(4, 3)
    out, node = activation(kinks, x)
    call, nodes = recorded(torch.square, "square", out, given=out), []

    def put(tensor, node_of):
        nodes.append(node_of(7))
        return tensor.clone()

    kinks.take_away(call, put)
    (without,) = nodes
    assert isinstance(without, WithoutKinks)
    assert without.inputs == [7]
    assert call.tensors[0] is not out
    g = torch.randn(4, 3)
    without.linearize([g])
    bump = node.curvature.clone()
    node.linearize([3 * g])
    torch.testing.assert_close(node.curvature, bump * 2 * g)
    assert torch.equal(without.jvp([g])[0], g)
    assert torch.equal(without.transpose([g])[0], g)


def test_functions_with_a_slope_at_the_kink_read_it_as_it_is():
    kinks, x = KinksOnTape(), torch.randn(4, 3)
    out, _ = activation(kinks, x)
    for func, name, args in ((torch.tanh, "tanh", ()), (torch.mul, "mul", (2.0,)), (F.relu, "relu", ())):
        call = recorded(func, name, out, *args, given=out)
        kinks.take_away(call, None)
        assert call.tensors[0] is out


def test_an_overwritten_tensor_is_as_what_was_written():
    kinks, x = KinksOnTape(), torch.randn(4, 3)
    out, _ = activation(kinks, x)
    target = torch.empty(4, 3)
    kinks.note_overwritten(target, out)
    assert kinks.of_result(recorded(torch.neg, "clone", target, given=target)) is not None
    kinks.note_overwritten(target, x)
    assert kinks.of_result(recorded(torch.neg, "clone", target, given=target)) is None
