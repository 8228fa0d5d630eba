"""Show the channel graph of a model as a table, and make a search space of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import count, marginal_cost
from nni_s3d.growth.graph.equal_parts import smallest_step
from nni_s3d.growth.text_table import table_lines

CAP = 8  # times its width that a group may grow to, in a search space to start from


def table(graph: ChannelGraph) -> str:
    """Return one line per group: width, parameters and MACs that one more neuron costs, splittable or why not.

    A group is called after its first producer; a residual stream has more.
    """
    params, macs = (marginal_cost(graph, kind) for kind in ("params", "macs"))
    titles = ("group", "width", "params/neuron", "MACs/neuron", "splittable")
    rows = []
    for group in graph:
        costs = (f"{float(price[group.channels].mean()):,.0f}" for price in (params, macs))
        more = len(group.producers) - 1
        name = group.name + (f" and {more} more" if more else "")
        rows.append((name, f"{group.width:,}", *costs, "yes" if group.splittable else f"no: {group.reason}"))
    lines = table_lines(titles, rows, right=titles[1:4])
    cost, channels = count(graph), sum(group.width for group in graph)
    share = sum(graph.widths.values())
    lines.append(f"{cost.params:,} parameters, {cost.macs:,} MACs; {share:,} of {channels:,} channels can be split")
    return "\n".join([*lines, *graph.remarks()])


def described(graph: ChannelGraph) -> dict[str, Any]:
    """Return what the table says, as JSON."""
    params, macs = (marginal_cost(graph, kind) for kind in ("params", "macs"))
    groups = [
        {
            "name": group.name,
            "producers": [str(layer) for layer in group.producers],
            "width": group.width,
            "params_per_neuron": float(params[group.channels].mean()),
            "macs_per_neuron": float(macs[group.channels].mean()),
            "splittable": group.splittable,
            "reason": group.reason,
        }
        for group in graph
    ]
    return {"groups": groups, **asdict(count(graph)), "remarks": list(graph.remarks())}


def search_space(graph: ChannelGraph, cap: int = CAP) -> dict[str, Any]:
    """Return an NNI search space: every splittable group from its width to `cap` times that.

    Widths go in steps of one, or of as many as there are parts that must stay equal.
    """
    return {
        name: {"_type": "quniform", "_value": [width, cap * width, smallest_step(graph, name)]}
        for name, width in graph.widths.items()
    }
