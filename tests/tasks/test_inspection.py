import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.surgery.widening import widen
from nni_s3d.tasks.inspection import search_space, table
from nni_s3d.tasks.search_space import Space
from tests.cases import BY_NAME, measured
from tests.wide import WIDE

BY_NAME = BY_NAME | {case.name: case for case in WIDE}


def test_the_table_tells_what_a_neuron_costs():
    run = measured(BY_NAME["residual-silu"])
    lines = table(run.graph).splitlines()
    assert lines[0].split() == ["group", "width", "params/neuron", "MACs/neuron", "splittable"]
    assert lines[1].split()[:4] == ["stem", "and", "2", "more"]
    reduce = lines[2].split()
    plan = s3d.plan_from_copies(run.graph, {"reduce": torch.tensor([2, 1, 1])})
    assert int(reduce[2]) == plan.params - s3d.count(run.graph).params
    assert int(reduce[3].replace(",", "")) == plan.macs - s3d.count(run.graph).macs
    assert lines[3].endswith("no: it is an output of the network")
    assert lines[-1].endswith("7 of 10 channels can be split")


def test_the_table_names_what_the_run_did_not_reach():
    class Dead(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.never = (torch.nn.Linear(3, 3) for _ in range(3))

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    graph = s3d.trace(Dead(), torch.randn(2, 3))
    assert table(graph).splitlines()[-1] == "not reached by the example run: never"
    assert str(graph).splitlines()[-1] == "not reached by the example run: never"


@pytest.mark.parametrize("name", ["residual-silu", "grouped", "grouped-gate", "shuffled", "split", "glu", "unet"])
def test_every_corner_of_a_search_space_can_be_built(name):
    run = measured(BY_NAME[name])
    space = Space.parse(search_space(run.graph, cap=2))
    assert space.low == run.graph.widths
    model = widen(run.model, run.graph, space.high)
    assert s3d.trace(model, BY_NAME[name].inputs()).widths == space.high


def test_widths_of_blocks_go_in_steps():
    graph = measured(BY_NAME["grouped"]).graph
    assert {name: entry["_value"][2] for name, entry in search_space(graph).items()} == {
        "stem": 1,
        "reduce": 2,
        "grouped": 2,
    }
