"""Which models grow, how exactly, what they cost, and how long it takes: the table in docs/coverage.md.

    python benchmarks/coverage.py [--models resnet50 GPT-2 ...] [--families timm ...] [--again] [--limit 600]

Every model runs in a process of its own on one thread, with a limit of time and memory, so that one that fails is a row
with its reason. Random weights, float64, evaluation mode, two samples; `coverage_models.py` says what is built. Goes on
with what is missing in the CSV file. The columns:

- can be split: the share of the output channels of the layers that `trace` reads, other than the outputs of the
  network, that sit in groups that can be split.
- drift: the largest change of the outputs when a random tenth of all neurons is split into 2, 3 or 4 copies with
  epsilon = 0, relative to the largest output; about half of the groups whose channels are averaged, as by a layer norm,
  are split into 2. Of detectors the raw outputs of the heads are compared, at proposals that
  stay the same: which boxes they choose is no smooth function.
- error: how far the measured change of a loss is from the predicted one, when a random tenth is split at once along
  random directions of negative curvature. Piecewise-linear activations and maxima are replaced by smooth activations
  and means, since they have no second derivative, and batch norms are fitted to random inputs; weights and scales that
  start at nearly zero are drawn at random. The loss is the mean of
  sqrt(1 + d^2), d the distance of all outputs from random targets. Of five epsilons, at which the loss changes by 1e-4
  to 1e-8 of itself, the best counts: larger ones feel the third derivative, smaller ones the rounding. Of the largest
  models every fourth group is moved, for lack of memory.
- MACs: what `count` says over half of what PyTorch's FlopCounterMode says, and the functions that `count` cannot know.
- CPU seconds of `trace` (of the same network in float32), `select` (Knapsack(growth=0.6), random eigenvalues; without
  the import of SciPy, which the first one in a process pays for) and `split`.
- no curvature: groups whose product with a random vector is zero; true of neurons that nothing but linear functions
  parts from the layers that read them.
- product: the time of one product of the splitting matrices of all neurons, over that of one training step (forward,
  backward, SGD) on the same samples; in float32 for models of more than 5e8 parameters, for lack of memory.
- why not the rest: the most frequent reasons, with the number of channels that each refuses; where a reason holds at
  several places, the first one is named.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd

FAMILIES = {
    "torchvision": "torchvision, classifiers",
    "segmentation": "torchvision, segmentation",
    "detection": "torchvision, detection",
    "timm": "timm",
    "transformers": "transformers",
    "structures": "Structures of other fields",
}
MARK = "row: "
HEAD = [
    "model",
    "input",
    "groups",
    "can be split",
    "drift",
    "error",
    "MACs",
    "trace s",
    "select s",
    "split s",
    "product",
    "why not the rest",
]


def measure_here(name: str, memory: float, skip: list[str]) -> None:
    """Measure one model, and print the row after every step."""
    import torch
    from coverage_measure import measure
    from coverage_models import all_cases

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 2**30),) * 2)
    case = next(case for case in all_cases() if case.name == name)
    failures, steps = [], measure(case)
    for step, function in ((step, function) for step, function in steps if step not in skip):
        print(MARK + json.dumps({"during": step}), flush=True)
        try:
            row = function()
        except Exception as error:
            failures.append(f"{step}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            row = {"failures": "; ".join(failures)}
        print(MARK + json.dumps(row), flush=True)
        if failures and step in ("build", "trace"):
            break
    print(MARK + json.dumps({"during": ""}), flush=True)


def measure_apart(name: str, limit: float, memory: float, skip: list[str]) -> dict[str, object]:
    """Return the row of a model that is measured in a process of its own."""
    command = [sys.executable, __file__, "--here", name, "--memory", str(memory), "--skip", *skip]
    row: dict[str, object] = {}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        printed, end = result.stdout, f"the process ended with {result.returncode}"
        said = result.stderr.strip().splitlines()
        end += f", {said[-1][:200]}" if said else ""
    except subprocess.TimeoutExpired as stopped:
        printed, end = (stopped.stdout or b"").decode(), f"stopped after {limit:g} s"
    for line in printed.splitlines():
        if line.startswith(MARK):
            row |= json.loads(line.removeprefix(MARK))
    if during := row.pop("during", "start"):
        row["failures"] = "; ".join(filter(None, [str(row.get("failures", "")), f"{during}: {end}"]))
    return row


def number(value: object, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def markdown_row(row: dict[str, object]) -> str:
    text = {key: "" if pd.isna(value) else str(value).replace("|", "\\|") for key, value in row.items()}
    error = "" if pd.isna(row["error"]) else f"{100 * row['error']:.2g}%"
    error += f" (no curvature in {text['zeros']})" if text["zeros"] else ""
    macs = number(row["MACs"], ".4f") + (f" (not known of {text['uncounted']})" if text["uncounted"] else "")
    share = "" if pd.isna(row["share"]) else f"{100 * row['share']:.1f}%"
    failures = f"**{text['failures']}**" if text["failures"] else ""
    why = "<br>".join(filter(None, [failures, *text["why not the rest"].splitlines()]))
    seconds = [number(row[key], ".2f") for key in ("trace s", "select s", "split s", "product")]
    cells = [text["model"], text["input"], text["groups"], share, number(row["drift"], ".0e"), error, macs]
    return f"| {' | '.join([*cells, *seconds, why])} |"


def summary(frame: pd.DataFrame) -> list[str]:
    lines = [
        "| family | models | 95% or more can be split | largest drift | largest error | MACs off by 0.1% | failed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family, title in FAMILIES.items():
        rows = frame[frame.family == family]
        if len(rows):
            off = ((rows["MACs"] - 1).abs() > 1e-3) & rows.uncounted.isna()
            drift, error = number(rows.drift.max(), ".0e"), number(100 * rows.error.max(), ".2g") + "%"
            counts = f"{(rows.share >= 0.95).sum()} | {drift} | {error} | {off.sum()} | {rows.failures.notna().sum()}"
            lines.append(f"| {title} | {len(rows)} | {counts} |")
    return lines


def markdown(frame: pd.DataFrame) -> str:
    legend = __doc__.partition("The columns:")[2].strip()
    partly = bool((frame.MACs.isna() & frame.failures.isna()).any())
    lines = [
        "# Which models grow, and how exactly",
        "",
        "Made by `python benchmarks/coverage.py`. Random weights, float64, one thread.",
        *(["Rows without MACs are of an earlier version, whose share counts the channels of followers too."] * partly),
        "",
        *summary(frame),
        "",
        "What the columns of the following tables are:",
        "",
        legend,
    ]
    for family, title in FAMILIES.items():
        rows = frame[frame.family == family]
        if len(rows):
            lines += ["", f"## {title}", "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
            lines += [markdown_row(row) for row in rows.sort_values("model").to_dict("records")]
    return "\n".join(lines) + "\n"


COLUMNS = [
    *("family", "model", "input", "groups", "share", "drift", "error", "MACs", "uncounted"),
    *("trace s", "select s", "split s", "product", "zeros", "why not the rest", "failures"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--again", action="store_true", help="measure models anew whose row lacks something")
    parser.add_argument("--limit", type=float, default=600, help="seconds for a model")
    parser.add_argument("--memory", type=float, default=16, help="GiB for a model")
    parser.add_argument("--skip", nargs="*", default=[], choices=["split", "product", "prediction", "select"])
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/coverage.csv"))
    parser.add_argument("--table", type=Path, default=Path("docs/coverage.md"))
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.here:
        measure_here(parsed.here, parsed.memory, parsed.skip)
        return
    from coverage_models import all_cases

    frame = pd.read_csv(parsed.csv) if parsed.csv.exists() else pd.DataFrame(columns=COLUMNS)
    if parsed.again:
        frame = frame[frame.failures.isna() & ((frame.share == 0) | frame["select s"].notna())]
    rows = {row["model"]: row for row in frame.to_dict("records")}
    for case in all_cases():
        wanted = case.family in parsed.families and (parsed.models is None or case.name in parsed.models)
        if wanted and case.name not in rows:
            row = measure_apart(case.name, parsed.limit, parsed.memory, parsed.skip)
            rows[case.name] = {"family": case.family, "model": case.name, "input": case.shown, **row}
            print(json.dumps(rows[case.name]), flush=True)
            pd.DataFrame(rows.values(), columns=COLUMNS).to_csv(parsed.csv, index=False)
    parsed.table.write_text(markdown(pd.DataFrame(rows.values(), columns=COLUMNS)))


if __name__ == "__main__":
    main()
