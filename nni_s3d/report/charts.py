"""The charts of a report's page, as plotly draws them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nni_s3d.report.files import COLORS
from nni_s3d.search.notes import Ends, SplitNote

SIZES = {"params": "parameters", "macs": "MACs per sample", "search_macs": "search cost (MACs of all trials so far)"}
_BOTH_ENDS = {"lambda min": ("#0072B2", 0), "lambda max": ("#D55E00", 1)}


def accuracy_over(frame: pd.DataFrame, size: str) -> go.Figure:
    """Return validation accuracy over a size: a line for every lineage, points for plain widths."""
    figure = go.Figure()
    rows = frame[frame["accuracy"].notna() & frame[size].notna()]
    for index, ((experiment, lineage), trials) in enumerate(rows.groupby(["experiment", "lineage"], sort=False)):
        trials = trials.sort_values("step", kind="stable") if lineage else trials
        figure.add_scatter(
            x=trials[size],
            y=100 * trials["accuracy"],
            name=escape(f"{experiment} {lineage}" if frame["experiment"].nunique() > 1 else lineage or "trials"),
            mode="lines+markers" if lineage else "markers",
            marker={"color": COLORS[index % len(COLORS)], "size": 9},
            text=[_hover(row) for row in trials.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.update_xaxes(title=SIZES[size], tickformat="~s")
    if rows[size].max() > 10 * rows[size].min() > 0:
        figure.update_xaxes(type="log", tickvals=_round_numbers(rows[size].min(), rows[size].max()))
    return _styled(figure, "validation accuracy (%)")


def widths_over_steps(steps: Sequence[int], widths: Sequence[Mapping[str, int]]) -> go.Figure:
    """Return the network as it grows: the width of every layer, from the first at the top, after every step."""
    layers = list(widths[0])
    grid = [[of_step[layer] for of_step in widths] for layer in layers]
    figure = go.Figure(
        go.Heatmap(
            x=[f"step {step}" for step in steps],
            y=[escape(layer) for layer in layers],
            z=grid,
            text=grid,
            texttemplate="%{text}",
            colorscale="Blues",
            hovertemplate="%{y}, %{x}: width %{z}<extra></extra>",
            showscale=False,
        )
    )
    figure.update_yaxes(autorange="reversed")
    return _styled(figure, "")


def gains(notes: Mapping[int, SplitNote]) -> go.Figure:
    """Return the change of the loss by the split of every step: as promised, on other samples, and as measured."""
    steps = [f"step {step}" for step in notes]
    held_out = [note.held_out for note in notes.values()]
    errors = {"type": "data", "array": [note.held_out_error for note in notes.values()]}
    figure = go.Figure()
    figure.add_bar(x=steps, y=[note.predicted for note in notes.values()], name="predicted", marker_color="#0072B2")
    figure.add_bar(x=steps, y=held_out, error_y=errors, name="predicted, held out", marker_color="#56B4E9")
    figure.add_bar(x=steps, y=[n.after - n.before for n in notes.values()], name="measured", marker_color="#D55E00")
    figure.update_layout(barmode="group")
    return _styled(figure, "change of the loss by the split")


def spectra(by_step: Mapping[int, Mapping[str, Ends]]) -> go.Figure:
    """Return both ends of the spectrum of every neuron, layer by layer; a slider chooses the step."""
    figure, shown = go.Figure(), []
    for number, (step, groups) in enumerate(by_step.items()):
        names = np.concatenate([[escape(name)] * len(ends[0]) for name, ends in groups.items()])
        for title, (color, end) in _BOTH_ENDS.items():
            values = np.concatenate([ends[end] for ends in groups.values()])
            box = {"x": names, "y": values, "name": title, "marker": {"color": color, "size": 4}, "visible": not number}
            figure.add_box(**box, boxpoints="all", jitter=0.5, pointpos=0)
            shown.append(step)
    choices = [
        {"label": f"after step {step}", "method": "update", "args": [{"visible": [step == other for other in shown]}]}
        for step in by_step
    ]
    figure.update_layout(boxmode="group", sliders=[{"steps": choices, "pad": {"t": 40}}])
    return _styled(figure, "eigenvalues of the splitting matrices")


def costs(frame: pd.DataFrame) -> go.Figure:
    """Return what every trial has cost, in MACs of training and of curvature, in the order of their ends."""
    rows = frame[frame["train_macs"].notna()]
    records = rows.to_dict("records")
    names = [escape(f"{row['lineage']} {row['step']:.0f}" if row["lineage"] else row["trial"]) for row in records]
    text = [_hover(row) for row in records]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=rows["train_macs"],
            text=text,
            textposition="none",
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_traces(marker_color="#009E73")
    figure.update_yaxes(tickformat="~s")
    return _styled(figure, "MACs of training and curvature")


def _round_numbers(least: float, most: float) -> list[float]:
    """Return the numbers 1, 2 and 5, and their decades, from below the least to above the most."""
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    return [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]


def _hover(row: Mapping[str, object]) -> str:
    """Return what is said of a trial under the cursor."""
    widths = json.loads(str(row["widths"]))
    lines = [
        f"<b>{row['trial']}</b> {row['lineage']}" + (f", step {row['step']:.0f}" if row["lineage"] else ""),
        f"accuracy {100 * float(str(row['accuracy'])):.2f}%, test {100 * float(str(row['test_accuracy'])):.2f}%",
        f"{row['params']:,.0f} parameters, {row['macs']:,.0f} MACs",
        f"{float(str(row['train_macs'])):.3g} MACs of training",
        ", ".join(f"{escape(str(name))} {width}" for name, width in widths.items()),
    ]
    return "<br>".join(lines)


def _styled(figure: go.Figure, title: str) -> go.Figure:
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        margin={"l": 60, "r": 40, "t": 40, "b": 50},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        modebar={"orientation": "v", "bgcolor": clear, "color": "#999", "activecolor": "#0072B2"},
    )
    figure.update_yaxes(title=title, automargin=True)
    return figure
