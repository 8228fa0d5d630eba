import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("plotly", reason="plotly, of the extra plots, is not installed")

from nni_s3d.errors import ReportError
from nni_s3d.report.networks import TrialNetwork
from nni_s3d.report.page import page, write_page
from nni_s3d.report.records import Records, _frame_of, read_records
from nni_s3d.search.store import Store
from nni_s3d.search.stored import StoredNetwork
from tests.browser import browser, until  # noqa: F401


class Outside(HTMLParser):
    """Notes what a page would load from elsewhere, and its tags that are left open."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.loaded += [value for name, value in attributes if name in ("src", "href") and value]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_tells_all_and_loads_nothing(experiment):
    experiment.config({"experimentName": "digits <S3D>", "trialCommand": "python x", "tuner": {"name": "S3D"}})
    text = page([read_records("abcd1234", experiment.root)])
    parsed = Outside(text)
    assert (parsed.loaded, parsed.open) == ([], [])
    titles = re.findall("<h2>(.*?)</h2>", text)
    lineage = "abcd1234: c1.3-m2-s0"
    assert titles == ["Accuracy against size and cost", lineage, "abcd1234: cost", "Trials", "abcd1234: settings"]
    cards = re.findall("<h3>(.*?)</h3>", text)
    assert cards == [
        "Width of every layer",
        "Change of the loss: predicted, held out, measured",
        "Both ends of the spectrum of every neuron",
    ]
    assert text.count("plotly.js v") == 1
    assert "digits &lt;S3D&gt;" in text
    assert "http-equiv" not in text
    assert text.count('<tr class="best">') == 1


def test_a_branch_begins_with_its_past_and_the_best_lineages_are_shown(tmp_path):
    store = Store(str(tmp_path / "store"))
    networks = []
    for number, (label, step, accuracy) in enumerate(
        [("a", 0, 0.1), ("a", 1, 0.2), ("a", 2, 0.3), ("a.1-x", 1, 0.4), ("a.1-x.2-y", 2, 0.9), ("b", 0, 0.0)]
        + [(f"c{i}", 0, 0.5 + i / 100) for i in range(3)]
    ):
        parameters = {"conv0": 10 * number + 3, "lineage": label, "step": step}
        metrics = {"default": accuracy, "step": step, "params": 1, "macs": 1, "train_macs": 1}
        networks.append(TrialNetwork("s", str(number), StoredNetwork(store, f"{number:016x}", parameters, metrics)))
    frame = _frame_of(networks)
    text = page([Records("s", frame, networks=networks)])
    titles = re.findall("<h2>s: (.*?)</h2>", text)
    assert titles == ["a.1-x.2-y", "c2", "c1", "c0", "cost"]
    assert "Of 7 lineages, the 4 with the best networks are shown." in text
    assert re.search(r'"text":\[\["?3"?,"?33"?,"?43"?\]\]', text)  # the widths of a 0, a.1-x 1 and a.1-x.2-y 2


def test_several_experiments_share_the_fronts(experiment, finished):
    text = page([read_records("abcd1234", experiment.root), read_records(str(finished[0]))], refresh=7)
    assert len(re.findall("<h2>Accuracy", text)) == 1
    assert len(re.findall("<h3>Width of every layer", text)) == 2
    assert '<meta http-equiv="refresh" content="7">' in text
    assert Outside(text).open == []


def test_strangers_names_are_text(plain):
    records = read_records("abcd1234", plain.root)
    evil = records.frame.assign(trial="<script>alert(1)</script>", experiment="<img src=x>")
    text = page([Records("<b>x</b>", evil)])
    assert "<script>alert" not in text
    assert "<img src=x>" not in text
    assert "<b>x</b>" not in text


def test_a_folder_that_cannot_be_made_is_named(plain, tmp_path):
    records = read_records("abcd1234", plain.root)
    assert write_page([records], tmp_path / "out").read_text().startswith("<!doctype html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="file: expected a folder to write to, got"):
        write_page([records], tmp_path / "file")


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (390, False)])
def test_a_browser_shows_it_without_errors(browser, experiment, tmp_path, width, dark):  # noqa: F811
    path = write_page([read_records("abcd1234", experiment.root)], tmp_path / "out")
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    until(lambda: browser.execute_script("return document.querySelectorAll('.js-plotly-plot .main-svg').length") >= 7)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width  # nothing sticks out
    outside = """return [...document.querySelectorAll(".card")].filter(card =>
        card.querySelector(".main-svg").getBoundingClientRect().right > card.getBoundingClientRect().right)"""
    assert browser.execute_script(outside) == []  # of its card
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(22, 24, 29)" if dark else "rgb(255, 255, 255)")
    text = browser.execute_script("return document.querySelector('.xtitle').style.fill")
    assert text == ("rgb(221, 221, 221)" if dark else "rgb(34, 34, 34)")
