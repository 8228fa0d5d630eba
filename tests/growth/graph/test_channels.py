from dataclasses import replace

import pytest
import torch

import nni_s3d as s3d
from nni_s3d.growth.graph.read import read_graph
from tests.cases import BY_NAME, measured


def test_the_graph_is_a_collection_of_groups():
    graph = measured(BY_NAME["residual-silu"]).graph
    assert len(graph) == 3
    assert [group.name for group in graph] == ["stem", "reduce", "head"]
    assert graph["reduce"] is graph.groups[1]
    with pytest.raises(s3d.ModelError, match="channel group 'conv9': expected one of stem, reduce, head"):
        graph["conv9"]


def test_the_graph_prints_as_a_table():
    lines = str(measured(BY_NAME["residual-silu"]).graph).splitlines()
    assert lines[0].split() == ["group", "width", "followers", "consumers", "splittable"]
    assert lines[1].split("  ")[0] == "stem + inner + expand"
    assert lines[2].split() == ["reduce", "3", "reduce_norm", "expand", "yes"]
    assert lines[3].endswith("no: it is an output of the network")


def test_graphs_groups_and_layers_are_compared_by_identity():
    graph, other = (read_graph(BY_NAME["residual-silu"].model(), BY_NAME["residual-silu"].inputs()) for _ in range(2))
    assert graph == graph
    assert graph != other
    assert graph["stem"] == graph["stem"] != other["stem"]
    assert graph.layers[0] != other.layers[0]
    assert len({graph, other, *graph.groups, *other.groups, *graph.layers, *graph.equal_parts}) > 8


def test_copies_of_all_groups_become_one_vector():
    graph = measured(BY_NAME["residual-silu"]).graph
    copies = graph.per_channel({"reduce": torch.tensor([2, 1, 3])})
    assert copies.tolist() == [1] * 4 + [2, 1, 3] + [1] * 3


def test_a_graph_knows_its_model():
    case = BY_NAME["residual-silu"]
    graph = measured(case).graph
    graph.check(case.model())
    model = case.model()
    model.head = torch.nn.Linear(4, 5)
    with pytest.raises(s3d.ModelError, match=r"head\.weight: expected a parameter of shape \(3, 4\), got one of .*5"):
        graph.check(model)
    del model.head
    with pytest.raises(s3d.ModelError, match=r"head\.weight: expected a parameter of shape \(3, 4\), got none"):
        graph.check(model)
    more = case.model()
    more.extra = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(s3d.ModelError, match=r"extra: expected no such parameter, got one of shape \(2,\)"):
        graph.check(more)


def test_all_but_some_groups_can_be_refused():
    graph = measured(BY_NAME["residual-silu"]).graph.refuse_others(["reduce"], "it is left alone")
    assert [group.reason for group in graph] == ["it is left alone", "", "it is an output of the network"]


def test_remarks_say_what_the_table_does_not_show():
    graph = measured(BY_NAME["mlp-relu"]).graph
    assert graph.remarks() == []
    said = replace(graph, unreached=("a", "b"), uncounted=("fft",)).remarks()
    assert said == ["not reached by the example run: a, b", "MACs and FLOPs are not known of: fft"]
