"""What a user sees in NNI's web UI, in a real browser: run with `pytest -m slow tests/plugin/test_web_ui.py`.

With NNI_S3D_PICTURES=docs/web_ui the pictures of docs/first_run.md are taken anew.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.browser import browser, until  # noqa: F401

ROOT = Path(__file__).parents[2]


NAS = """
import sys
import time
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.experiment import NasExperiment
from nni_s3d.plugin.space import TaskSpace
from nni_s3d.plugin.strategy import S3D
from nni_s3d.plugin.trial import evaluate_model

experiment = NasExperiment(TaskSpace(sys.argv[1]), FunctionalEvaluator(evaluate_model), S3D(steps=2, epochs=2))
experiment.run(port=int(sys.argv[2]))
time.sleep(600)  # the web UI stays until the test has seen it
"""


@pytest.fixture(scope="module", params=["tuner", "strategy"])
def address(request, tmp_path_factory):
    """Where the web UI of a finished experiment is: the digits, or three short steps of them."""
    if request.param == "strategy" and "NNI_S3D_PICTURES" in os.environ:
        pytest.skip("the pictures are those of the tuner")
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    made = f"http://127.0.0.1:{port}"
    with {"tuner": under_nnictl, "strategy": as_nas_experiment}[request.param](home, port, environment):
        until(lambda: has_ended(made), 300)
        yield made


@contextmanager
def under_nnictl(home: Path, port: int, environment: dict[str, str]):
    config = yaml.safe_load((ROOT / "configs/digits/s3d.yml").read_text())
    if "NNI_S3D_PICTURES" not in os.environ:
        config["tuner"]["classArgs"] |= {"steps": 2, "epochs": 2}
    for key in ("searchSpaceFile", "trialCodeDirectory"):
        config[key] = str((ROOT / "configs/digits" / config[key]).resolve())
    (home / "s3d.yml").write_text(yaml.safe_dump(config))
    nnictl = str(Path(sys.executable).parent / "nnictl")

    def run(*words: str) -> str:
        return subprocess.run([nnictl, *words], env=environment, capture_output=True, text=True, cwd=home).stdout

    try:
        printed = run("create", "--config", str(home / "s3d.yml"), "--port", str(port))
        if "nnictl stop" not in printed:  # NNI waits three seconds for its server
            printed = run("create", "--config", str(home / "s3d.yml"), "--port", str(port))
        assert re.search(r"nnictl stop (\w+)", printed), printed
        yield
    finally:
        run("stop", "--all")  # those of this home


@contextmanager
def as_nas_experiment(home: Path, port: int, environment: dict[str, str]):
    words = [sys.executable, "-c", NAS, str(ROOT / "configs/digits/task.yml"), str(port)]
    with subprocess.Popen(words, cwd=home, env=environment) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)  # it stops its experiment


def has_ended(address: str) -> bool:
    """Whether an experiment is over; NNI goes on saying RUNNING of one whose strategy has returned."""
    try:
        jobs = rest(address, "trial-jobs")
        ended = len(jobs) == 3 and all(job["status"] == "SUCCEEDED" for job in jobs)
        return ended or rest(address, "check-status")["status"] == "DONE"
    except (OSError, ValueError):  # there is no server yet, or it says INITIALIZING
        return False


def rest(address: str, path: str):
    with urllib.request.urlopen(f"{address}/api/v1/nni/{path}") as answer:
        return json.load(answer)


@pytest.fixture
def page(browser, address):  # noqa: F811
    """The page of all trials."""
    browser.get(f"{address}/detail")
    until(lambda: shown(browser, ".ms-DetailsRow"))
    return browser


def shown(page, selector: str, text: str = ""):
    """Return the elements on display that a selector finds, those with a text."""
    return [e for e in page.find_elements("css selector", selector) if e.is_displayed() and text in e.text]


def click(page, selector: str, text: str) -> None:
    until(lambda: shown(page, selector, text))[0].click()


def keep_picture(page, name: str) -> None:
    """Keep a picture for the documentation, if it is wanted."""
    if folder := os.environ.get("NNI_S3D_PICTURES"):
        time.sleep(3)  # charts are drawn slowly for the eye
        page.save_screenshot(f"{folder}_{name}.png")


@pytest.mark.slow
def test_the_table_has_size_step_and_lineage_as_columns(page, address):
    click(page, "button", "Add/Remove columns")
    columns = ["step (space)", "lineage (space)", "params (metric)", "macs (metric)"]
    for column in columns:
        click(page, ".ms-Checkbox-label", column)
    click(page, ".ms-Dialog-actions button", "Save")
    until(lambda: shown(page, ".ms-DetailsHeader-cellName", columns[-1]))
    titles = [cell.text for cell in page.find_elements("css selector", ".ms-DetailsHeader-cellName")]
    rows = []
    for row in shown(page, ".ms-DetailsRow"):
        cells = [cell.text for cell in row.find_elements("css selector", ".ms-DetailsRow-cell")]
        rows.append([cells[titles.index(column)] for column in columns])
    finals = [json.loads(json.loads(job["finalMetricData"][0]["data"])) for job in rest(address, "trial-jobs")]
    assert rows == [[str(f["step"]), "c1.3-m2-s0", str(f["params"]), str(f["macs"])] for f in finals]
    keep_picture(page, "table")


@pytest.mark.slow
def test_the_chart_shows_every_number_that_a_trial_reports(page):
    click(page, ".ms-Dropdown", "default")
    until(lambda: shown(page, ".ms-Dropdown-item"))
    names = [item.get_attribute("textContent") for item in page.find_elements("css selector", ".ms-Dropdown-item")]
    assert {"default", "test_accuracy", "params", "macs", "flops", "train_macs"} <= set(names)
    click(page, ".ms-Dropdown-item", "macs")
    assert until(lambda: shown(page, ".ms-Dropdown", "macs"))


@pytest.mark.slow
def test_the_hyper_parameter_view_has_widths_and_sizes_against_accuracy(page):
    click(page, "[role=tab]", "Hyper-parameter")
    until(lambda: shown(page, "svg text", "pw5"))
    axes = [text.text for text in shown(page, "svg text") if re.match("[a-z]", text.text)]
    assert {"conv0", "pw1", "pw5", "params", "macs", "default"} <= set(axes)
    drawn = """const canvas = document.querySelector("canvas.foreground");
        const left = canvas.getContext("2d").getImageData(0, 0, canvas.width / 6, canvas.height);
        return left.data.some(value => value > 0)"""
    assert until(lambda: page.execute_script(drawn))  # trials, through the axes of the first widths
    keep_picture(page, "widths")


@pytest.mark.slow
def test_intermediate_results_are_curves(page, address):
    click(page, "[role=tab]", "Intermediate")
    until(lambda: shown(page, "canvas"))
    reported = {metric["trialJobId"] for metric in rest(address, "metric-data") if metric["type"] == "PERIODICAL"}
    assert reported == {job["trialJobId"] for job in rest(address, "trial-jobs")}
    keep_picture(page, "curves")


@pytest.mark.slow
def test_the_log_of_a_trial_reads_like_a_story(address):
    jobs = sorted(rest(address, "trial-jobs"), key=lambda job: job["sequenceId"])
    with urllib.request.urlopen(f"{address}/api/v1/nni/trial-file/{jobs[1]['trialJobId']}/trial.log") as answer:
        log = answer.read().decode()
    story = ["neurons: the loss changes by", "predicted change of the loss", "held out", "trained for", "to .* MACs"]
    assert re.search(".*".join(story), log, re.DOTALL), log


@pytest.mark.slow
def test_the_button_opens_tensorboard(page, address):
    pytest.importorskip("tensorboard", reason="tensorboard, of the extra plots, is not installed")
    for box in page.find_elements("css selector", ".detail-check .ms-Checkbox-checkbox")[:2]:
        box.click()
    until(lambda: [b for b in shown(page, "button", "TensorBoard") if b.is_enabled()])[0].click()
    (task,) = until(lambda: rest(address, "tensorboard-tasks"))
    board = f"http://127.0.0.1:{task['port']}"

    def runs():
        try:
            with urllib.request.urlopen(f"{board}/data/runs") as answer:
                return json.load(answer)
        except OSError:  # it needs seconds to start
            return None

    assert len(until(runs, 60)) == 2
