"""Weights whose rows are divided by their size stay what they were, times the weights of copies."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Role
from tests.growth.graph.test_weight_parts import Standardised

MIDDLES = {
    "weight norm": lambda: weight_norm(nn.Conv2d(3, 4, 2)),
    "weight norm in blocks": lambda: weight_norm(nn.Conv2d(4, 6, 2, groups=2)),
    "weight standardisation": lambda: Standardised(gain=True),
}


@pytest.mark.parametrize("name", MIDDLES)
def test_new_columns_leave_what_old_rows_compute(name):
    torch.manual_seed(0)
    middle = MIDDLES[name]()
    first, last = nn.Conv2d(2, middle.in_channels, 1), nn.Conv2d(middle.out_channels, 2, 1)
    model = nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), last)
    model, x = model.double().eval(), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    graph = s3d.trace(model, x)
    assert graph.widths == {"0": middle.in_channels, "2": middle.out_channels}
    assert any(layer.norm is not None for layer in graph.layers)
    copies = s3d.with_equal_parts(graph, {name: torch.arange(width) % 3 + 1 for name, width in graph.widths.items()})
    grown = s3d.split(model, graph, s3d.plan_from_copies(graph, copies, c=3.0), epsilon=0)
    torch.testing.assert_close(grown.model(x), model(x), rtol=1e-12, atol=1e-12)
    assert any(axis.role is Role.COLUMN for axis in grown.graph.axes())
    again = s3d.trace(grown.model, x)
    assert again.widths == grown.widths
    assert s3d.count(again) == s3d.count(grown.graph)
