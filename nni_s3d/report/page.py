"""One HTML page that needs no network: fronts, the growing network, gains, spectra, costs and settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nni_s3d.errors import ReportError
from nni_s3d.report import charts
from nni_s3d.report.records import Records
from nni_s3d.report.table import best_row, duration, formatted, si
from nni_s3d.search.branches import parent_of
from nni_s3d.search.notes import Ends, read_spectra, read_split
from nni_s3d.search.stored import StoredNetwork

_KEPT = ("experimentName", "searchSpace", "trialCommand", "trialCodeDirectory", "trialConcurrency", "maxTrialNumber")

_DRAWN = 4  # lineages of an experiment

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --text: #222; --page: #fff; --card: #f6f7f9; --line: #d9dce1; --best: #fff3cd; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --text: #ddd; --page: #16181d; --card: #1f2229; --line: #383d47; --best: #4d4320; }}
}}
body {{ margin: 0 auto; max-width: 1500px; padding: 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--page); }}
h1 {{ font-size: 1.5rem; margin: 0; }}
h2 {{ font-size: 1.15rem; margin: 1.6rem 0 .4rem; }}
p {{ margin: .2rem 0 .6rem; max-width: 70em; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: .8rem; }}
.card {{ background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .4rem; min-width: 0; }}
.card h3 {{ font-size: .95rem; margin: .2rem .4rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2), th:last-child, td:last-child {{ text-align: left; }}
tr.best {{ background: var(--best); }}
pre {{ overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{lead}</p>
{body}
<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
function paint() {{
  const text = dark.matches ? "#ddd" : "#222", line = dark.matches ? "#383d47" : "#d9dce1";
  for (const chart of document.querySelectorAll(".js-plotly-plot"))
    Plotly.relayout(chart, {{"font.color": text, "xaxis.gridcolor": line, "yaxis.gridcolor": line,
      "xaxis.zerolinecolor": line, "yaxis.zerolinecolor": line}});
}}
dark.addEventListener("change", paint);
paint();
</script>
</body>
</html>
"""


def page(experiments: Sequence[Records], refresh: int = 0) -> str:
    """Return the page as HTML.

    Args:
        experiments: one or several, whose fronts stand in the same charts.
        refresh: seconds after which a browser loads it anew; 0: never.
    """
    frame = pd.concat([experiment.frame for experiment in experiments], ignore_index=True)
    sections = [*_fronts(frame), *(part for experiment in experiments for part in _of_experiment(experiment))]
    figures = iter([True])  # the library stands in the page once
    body = "\n".join(_section(title, text, cards, figures) for title, text, cards in sections)
    body += _table(frame) + "".join(map(_settings, experiments))
    tag = f'\n<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    title = escape(", ".join(experiment.name for experiment in experiments))
    return _PAGE.format(title=title, lead=_lead(experiments, frame), body=body, refresh=tag)


def write_page(found: Sequence[Records], folder: Path) -> Path:
    """Write report.html and return its path.

    Raises:
        ReportError: the folder cannot be written to.
    """
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{folder}: expected a folder to write to, got: {error}") from error
    return path


def _lead(experiments: Sequence[Records], frame: pd.DataFrame) -> str:
    finished = int((frame["status"] == "SUCCEEDED").sum())
    statuses = ", ".join(f"{experiment.name} is {experiment.status}" for experiment in experiments if experiment.status)
    chosen = best_row(frame)
    best = ""
    if chosen is not None:
        row = frame.loc[chosen]
        best = f" Best on validation: {row['trial']}, {row['accuracy']:.2%} (test {row['test_accuracy']:.2%})"
        best += f", {si(row['params'])} parameters, {si(row['macs'])} MACs."
    return escape(f"{finished} finished trial{'' if finished == 1 else 's'}. {statuses}{'.' if statuses else ''}{best}")


_Cards = list[tuple[str, Any]]  # titles and figures


def _fronts(frame: pd.DataFrame) -> Iterator[tuple[str, str, _Cards]]:
    cards = [("", charts.accuracy_over(frame, size)) for size in charts.SIZES if frame[size].notna().any()]
    yield "Accuracy against size and cost", "Every point is a network; the cursor shows its widths.", cards


def _of_experiment(experiment: Records) -> Iterator[tuple[str, str, _Cards]]:
    """Yield what is told of the lineages of an experiment."""
    lineages: dict[str, dict[int, StoredNetwork]] = {}
    for network in (one.network for one in experiment.networks if one.network.parameters.get("lineage")):
        lineages.setdefault(network.parameters["lineage"], {})[int(network.metrics["step"])] = network
    best = sorted(lineages, key=lambda label: -max(network.metrics["default"] for network in lineages[label].values()))
    for label in best[:_DRAWN]:
        more = f" Of {len(best)} lineages, the {_DRAWN} with the best networks are shown." if len(best) > _DRAWN else ""
        text = f"The network as it grows, and what each split did.{more}"
        yield f"{experiment.name}: {label}", text, _lineage(_with_past(label, lineages))
    text = "What each trial has cost, in the order of their ends."
    yield f"{experiment.name}: cost", text, [("", charts.costs(experiment.frame))]


def _with_past(label: str, lineages: Mapping[str, dict[int, StoredNetwork]]) -> dict[int, StoredNetwork]:
    """Return the networks of a lineage, {step: network}; a branch begins with those that it has grown from."""
    branch = parent_of(label)
    if branch is None or branch.parent not in lineages:
        return lineages[label]
    past = {step: network for step, network in _with_past(branch.parent, lineages).items() if step < branch.step}
    return past | lineages[label]


def _lineage(networks: Mapping[int, StoredNetwork]) -> _Cards:
    widths = [network.widths for network in networks.values()]
    cards = [("Width of every layer", charts.widths_over_steps(list(networks), widths))]
    found = {step: read_split(network.store, network.key) for step, network in networks.items()}
    if notes := {step: note for step, note in found.items() if note is not None}:
        cards.append(("Change of the loss: predicted, held out, measured", charts.gains(notes)))
    ends = {step: _in_order(read_spectra(network.store, network.key), widths[0]) for step, network in networks.items()}
    if measured := {step: of_step for step, of_step in ends.items() if of_step}:
        cards.append(("Both ends of the spectrum of every neuron", charts.spectra(measured)))
    return cards


def _in_order(spectra: Mapping[str, Ends], layers: Iterable[str]) -> dict[str, Ends]:
    """Return spectra in the order of the layers; a file sorts them."""
    return {name: spectra[name] for name in dict.fromkeys([*layers, *spectra]) if name in spectra}


def _section(title: str, text: str, cards: _Cards, first: Iterator[bool]) -> str:
    made = []
    for heading, figure in cards:
        plotly = "inline" if next(first, False) else False
        settings = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
        chart = figure.to_html(full_html=False, include_plotlyjs=plotly, config=settings, default_height=400)
        made.append(f'<div class="card">{f"<h3>{escape(heading)}</h3>" if heading else ""}{chart}</div>')
    return f'<h2>{escape(title)}</h2>\n<p>{escape(text)}</p>\n<div class="cards">{"".join(made)}</div>'


def _table(frame: pd.DataFrame) -> str:
    chosen = best_row(frame)
    titles = ("trial", "lineage", "step", "accuracy", "test", "params", "MACs", "search MACs", "time", "status")
    rows = []
    for index, row in frame.iterrows():
        cells = [row["trial"], row["lineage"], formatted(row["step"], ".0f")]
        cells += [formatted(row["accuracy"], ".4f"), formatted(row["test_accuracy"], ".4f")]
        cells += [si(row[name]) for name in ("params", "macs", "search_macs")]
        cells += [duration(row["seconds"]), row["status"]]
        best = ' class="best"' if index == chosen else ""
        rows.append(f"<tr{best}>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f'<h2>Trials</h2>\n<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _settings(experiment: Records) -> str:
    """Return the settings of an experiment as a file that repeats it."""
    if not experiment.config:
        return ""
    kept = {key: experiment.config[key] for key in _KEPT if experiment.config.get(key) is not None}
    tuner = {key: value for key, value in (experiment.config.get("tuner") or {}).items() if value is not None}
    text = yaml.safe_dump(
        {**kept, "trainingService": {"platform": "local"}, "tuner": tuner}, sort_keys=False, default_flow_style=None
    )
    command = "nnictl create --config experiment.yml"
    return (
        f"<h2>{escape(experiment.name)}: settings</h2>\n<p>As experiment.yml: {command}</p>\n<pre>{escape(text)}</pre>"
    )
