import numpy as np
import pandas as pd
import pytest

pytest.importorskip("plotly", reason="plotly, of the extra plots, is not installed")

from nni_s3d.report import charts
from nni_s3d.report.table import read_frame
from nni_s3d.search.notes import SplitNote


def test_a_lineage_is_a_line(growth):
    frame = read_frame(experiments_dir=growth.root)
    figure = charts.accuracy_over(frame, "params")
    assert {trace.name: (trace.mode, list(trace.x), list(trace.y)) for trace in figure.data} == {
        "c1.3-m2-s0": ("lines+markers", [1000, 1500], [60, 80]),
        "c1-m2-s0": ("lines+markers", [1000], [50]),
    }
    (text,) = (trace.text[1] for trace in figure.data if trace.name == "c1.3-m2-s0")
    assert "conv0 12" in text
    assert "test 70.00%" in text


def test_plain_widths_are_points_and_wide_ranges_logarithmic(plain):
    frame = read_frame(experiments_dir=plain.root)
    (trace,) = charts.accuracy_over(frame, "macs").data
    assert (trace.mode, trace.name) == ("markers", "trials")
    assert charts.accuracy_over(frame, "macs").layout.xaxis.type is None
    frame["params"] *= [1, 2, 3, 4, 40]
    axis = charts.accuracy_over(frame, "params").layout.xaxis
    assert axis.type == "log"
    assert {1000, 2000, 5000, 100_000} <= set(axis.tickvals)


def test_experiments_stand_apart(plain):
    frame = read_frame(experiments_dir=plain.root)
    both = pd.concat([frame, frame.assign(experiment="<b>x</b>")])
    names = [trace.name for trace in charts.accuracy_over(both, "macs").data]
    assert names == ["abcd1234 ", "&lt;b&gt;x&lt;/b&gt; "]


def test_the_network_grows_from_left_to_right():
    (heat,) = charts.widths_over_steps([0, 1], [{"conv0": 3, "pw1": 4}, {"conv0": 5, "pw1": 4}]).data
    assert (list(heat.x), list(heat.y)) == (["step 0", "step 1"], ["conv0", "pw1"])
    assert np.array(heat.z).tolist() == [[3, 5], [4, 4]]


def test_gains_are_what_was_promised_and_what_came():
    notes = {1: SplitNote(3, -0.5, -0.4, 0.1, 2.0, 1.75), 2: SplitNote(1, None, None, None, 1.0, 1.5)}
    predicted, held_out, measured = charts.gains(notes).data
    assert list(predicted.y) == [-0.5, None]
    assert (list(held_out.y), list(held_out.error_y.array)) == ([-0.4, None], [0.1, None])
    assert list(measured.y) == [-0.25, 0.5]


def test_a_slider_shows_the_spectra_of_one_step():
    ends = (np.array([-2.0, -1.0]), np.array([1.0, 3.0]))
    figure = charts.spectra({0: {"conv0": ends}, 2: {"conv0": ends, "pw1": ends}})
    assert [trace.visible for trace in figure.data] == [True, True, False, False]
    assert list(figure.data[2].x) == ["conv0", "conv0", "pw1", "pw1"]
    assert list(figure.data[3].y) == [1, 3, 1, 3]
    (slider,) = figure.layout.sliders
    assert [step.args[0]["visible"] for step in slider.steps] == [
        [True, True, False, False],
        [False, False, True, True],
    ]


def test_costs_stand_in_the_order_of_the_trials(growth):
    (bars,) = charts.costs(read_frame(experiments_dir=growth.root)).data
    assert list(bars.x) == ["c1-m2-s0 0", "c1.3-m2-s0 0", "c1.3-m2-s0 1"]
    assert list(bars.y) == [1e7, 1e7, 1.5e7]
