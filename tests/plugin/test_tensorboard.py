import sys

import pytest

from nni_s3d.plugin.tensorboard import write_tensorboard
from nni_s3d.search.store import Store
from nni_s3d.search.stored import stored_networks
from tests.finished import finished  # noqa: F401

pytest.importorskip("tensorboard", reason="tensorboard, of the extra plots, is not installed")


@pytest.fixture
def events(finished, tmp_path):  # noqa: F811
    """What TensorBoard finds of both steps of a lineage."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    networks = stored_networks(Store(str(finished[0])))
    found = []
    for step, network in enumerate(networks):
        assert write_tensorboard(network, [0.25, 0.5], tmp_path / str(step))
        found.append(EventAccumulator(str(tmp_path / str(step))).Reload())
    return networks, found


def test_curves_widths_and_gains_are_scalars(events):
    networks, found = events
    for step, (network, events_of_step) in enumerate(zip(networks, found, strict=True)):
        scalars = {
            tag: [(e.step, e.value) for e in events_of_step.Scalars(tag)] for tag in events_of_step.Tags()["scalars"]
        }
        assert scalars["training/validation accuracy"] == [(0, 0.25), (1, 0.5)]
        assert scalars["width/pw1"] == [(step, network.widths["pw1"])]
        assert scalars["growth/macs"] == [(step, network.metrics["macs"])]
        assert scalars["growth/accuracy"] == [(step, pytest.approx(network.metrics["default"]))]
        assert ("change of the loss by the split/measured" in scalars) == (step == 1)


def test_spectra_are_histograms(events):
    networks, (first, last) = events
    tags = first.Tags()["histograms"]
    assert set(tags) == {f"lambda {end}/{layer}" for end in ("min", "max") for layer in networks[0].widths}
    (histogram,) = first.Histograms("lambda min/pw1")
    assert (histogram.step, histogram.histogram_value.num) == (0, networks[0].widths["pw1"])
    assert last.Tags()["histograms"] == []


def test_widths_stand_beside_results_in_hparams(events):
    from tensorboard.plugins.hparams import plugin_data_pb2

    networks, found = events
    content = found[1].SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    told = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert told["pw1"].number_value == networks[1].widths["pw1"]
    assert told["lineage"].string_value == "c1.3-m2-s0"
    assert found[1].Scalars("hparams/macs")[0].value == networks[1].metrics["macs"]


def test_without_tensorboard_a_trial_goes_on(finished, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    network = stored_networks(Store(str(finished[0])))[0]
    assert not write_tensorboard(network, [], tmp_path / "none")
    assert not (tmp_path / "none").exists()
