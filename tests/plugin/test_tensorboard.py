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
    for step in range(len(networks)):
        assert write_tensorboard(networks[: step + 1], [0.25, 0.5], tmp_path / str(step))
        found.append(EventAccumulator(str(tmp_path / str(step))).Reload())
    return networks, found


def test_curves_widths_and_gains_are_scalars_over_all_steps_so_far(events):
    networks, found = events
    for step, told in enumerate(found):
        scalars = {tag: [(e.step, e.value) for e in told.Scalars(tag)] for tag in told.Tags()["scalars"]}
        history = list(enumerate(networks[: step + 1]))
        assert scalars["training/validation accuracy"] == [(0, 0.25), (1, 0.5)]
        assert scalars["width/pw1"] == [(i, network.widths["pw1"]) for i, network in history]
        assert scalars["growth/macs"] == [(i, network.metrics["macs"]) for i, network in history]
        accuracies = [(i, pytest.approx(network.metrics["default"])) for i, network in history]
        assert scalars["growth/accuracy"] == accuracies
        assert ("change of the loss by the split/measured" in scalars) == (step == 1)


def test_spectra_are_histograms(events):
    networks, found = events
    for told in found:
        expected = {f"lambda {end}/{layer}" for end in ("min", "max") for layer in networks[0].widths}
        assert set(told.Tags()["histograms"]) == expected
        (histogram,) = told.Histograms("lambda min/pw1")  # nothing grows after the last step
        assert (histogram.step, histogram.histogram_value.num) == (0, networks[0].widths["pw1"])


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
    networks = stored_networks(Store(str(finished[0])))
    assert not write_tensorboard(networks, [], tmp_path / "none")
    assert not (tmp_path / "none").exists()
