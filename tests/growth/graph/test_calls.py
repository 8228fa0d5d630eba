"""Runs that make the same calls, and what may be concluded from that."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.calls import CallLog, calls_and_outputs
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.graph.read import read_run
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.grown_graph import is_as_expected, read_grown_run
from nni_s3d.growth.surgery.install import install
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place
from tests import reference
from tests.cases import BY_NAME, all_cases, measured
from tests.wide import WIDE, Net, linears, random_case, sample


def chain(forward: Callable[..., object]) -> Net:
    return Net(lambda m, x: m.b(forward(m.a(x))), **linears((4, 6), (6, 2))).double()


def test_calls_say_on_what_they_were_made():
    model, x = chain(lambda h: (h * h.shape[1]).tanh()), sample(5, 4)
    calls, outputs = calls_and_outputs(model, x)
    assert calls == [
        ("linear", (None, "a.weight", "a.bias")),
        ("mul", (1,)),
        ("tanh", (2,)),
        ("linear", (3, "b.weight", "b.bias")),
    ]
    assert torch.equal(outputs[0], model(x))
    assert calls_and_outputs(chain(lambda h: (h * 6).tanh()), x)[0] == calls
    assert calls_and_outputs(chain(lambda h: (h * h).tanh()), x)[0] != calls


@all_cases
def test_the_tracer_and_a_run_without_rules_see_the_same_calls(case):
    model = case.model().train()
    with reference.untouched(model):
        calls, outputs = calls_and_outputs(model, case.inputs())
        run = read_run(model, case.inputs())
    assert run.calls == calls
    assert all(map(torch.equal, run.outputs, outputs))


@torch.no_grad()
@pytest.mark.parametrize("case", [*BY_NAME.values(), *WIDE, *map(random_case, range(40))], ids=lambda case: case.name)
def test_where_the_same_calls_are_made_in_order_channels_lie_where_copies_are_put(case):
    measure, inputs = measured(case), case.inputs()
    graph, model = measure.graph, copy.deepcopy(measure.model)
    before = read_run(model, inputs).calls
    copies = graph.per_channel(with_equal_parts(graph, reference.plan_of_random_copies(graph, (1, 2), seed=1)))
    weights = torch.ones(int(copies.sum()), dtype=torch.float64)
    growth = AxisGrowth(graph, NewChannels(copies, weights, weights), slots_in_place(graph, copies))
    install(model, growth.values(dict((*model.named_parameters(), *model.named_buffers()))), graph.layers)
    same = before is not None and calls_and_outputs(model, inputs)[0] == before
    assert not same or is_as_expected(read_grown_run(model, inputs, graph).notes, graph, copies, growth.slots)
    if case in BY_NAME.values():
        assert same


def test_what_is_computed_from_parameters_alone_is_known():
    a, x = nn.Linear(4, 3).double(), sample(5, 4)
    log, transposed, norm, both = CallLog(a), a.weight.mT, a.weight.norm(), a(x)
    log.add("mT", [a.weight], [transposed])
    log.add("norm", [transposed, a.bias], [norm])
    log.add("linear", [x, a.weight], [both])
    log.add("mul", [norm, both], [norm * both])
    assert log.is_of_parameters([norm, transposed, a.bias])
    assert not log.is_of_parameters([both])
    assert not log.is_of_parameters([a.weight, x])


@pytest.mark.parametrize(
    ("forward", "in_order"),
    [
        (torch.tanh, True),
        (lambda h: h.unflatten(1, (6, 1)).permute(0, 2, 1).flatten(1), True),
        (lambda h: torch.cat([h[:, None].repeat_interleave(2, 1), h[:, None]], 1)[:, 1], True),
        (lambda h: h.unflatten(1, (2, 3)).transpose(1, 2).flatten(1), False),
        (lambda h: h.flip(1), False),
        (lambda h: torch.cat(h.chunk(2, 1)[::-1], 1), False),
        (lambda h: h[:, :3].repeat(1, 2), False),
        (lambda h: torch.stack([h, h], 2)[..., 0], True),
        (lambda h: torch.stack(h.chunk(2, 1), 2).flatten(1), False),
        (lambda h: torch.cat([nn.functional.glu(h), h[:, 3:]], 1), False),
    ],
)
def test_what_changes_the_order_of_channels_needs_a_second_look(forward, in_order):
    run = read_run(chain(forward), sample(5, 4))
    assert (run.calls is not None) == in_order


def _detached_when_wide(m: nn.Module, x: Tensor) -> Tensor:
    hidden = m.a(x)
    return m.b(hidden.detach() if hidden.shape[1] > 6 else hidden.tanh().atanh())


def test_a_grown_network_that_makes_other_calls_is_followed_again():
    graph = s3d.trace(Net(_detached_when_wide, **linears((4, 6), (6, 2))).double(), sample(5, 4))
    assert not graph["a"].splittable
