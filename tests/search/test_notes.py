from dataclasses import replace

import numpy as np
import pytest

import nni_s3d as s3d
from nni_s3d.errors import StoreError
from nni_s3d.search.folder import Folder
from nni_s3d.search.notes import SplitNote, read_spectra, read_split, write_spectra, write_split
from nni_s3d.search.store import Store
from nni_s3d.search.stored import stored_networks
from tests.cases import BY_NAME, measured


def test_a_growth_step_leaves_what_its_readers_need(grown):
    path, folder, _ = grown
    store = Store(str(folder))
    networks = {network.parameters["step"]: network for network in stored_networks(store)}
    splits = {step: read_split(store, network.key) for step, network in networks.items()}
    spectra = {step: read_spectra(store, network.key) for step, network in networks.items()}
    assert splits[0] is None
    assert all(splits[step].neurons > 0 and splits[step].before > 0 for step in (1, 2))
    assert spectra[2] == {}  # nothing grows after the last step
    if "new_neurons" in path.read_text():
        assert splits[1].predicted is None
        assert spectra[0] == {}
        return
    assert splits[1].predicted < 0
    for step in (0, 1):
        widths = networks[step].widths
        assert {name: len(ends[0]) for name, ends in spectra[step].items()} == widths
        assert all((low <= high).all() for low, high in spectra[step].values())


def test_a_note_is_in_units_of_the_loss(store):
    run = measured(BY_NAME["mlp-tanh"])
    plan = replace(s3d.select(run.spectrum, run.graph, s3d.TopK(2)), gain=-4.0, held_out_gain=-3.0, held_out_error=0.5)
    note = SplitNote.of(plan, 0.1, 1.5, 1.25)
    assert (note.predicted, note.held_out, note.held_out_error) == pytest.approx((-0.02, -0.015, 0.0025))
    write_split(store, "0123", note)
    assert read_split(store, "0123") == note
    write_spectra(store, "0123", run.spectrum)
    for name, (low, high) in read_spectra(store, "0123").items():
        np.testing.assert_allclose(low, run.spectrum[name].lambda_min, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(high, run.spectrum[name].lambda_max, rtol=1e-6, atol=1e-6)


def test_what_is_no_note_is_refused(store):
    assert read_split(store, "x") is None
    assert read_spectra(store, "x") == {}
    store.write_json("x/split.json", {"neurons": 3})
    with pytest.raises(StoreError, match=r"split.json: expected the key 'predicted'"):
        read_split(store, "x")
    Folder(store.url).write_bytes("x/spectra.safetensors", b"no")
    with pytest.raises(StoreError, match=r"spectra.safetensors: expected a file as this package wrote it"):
        read_spectra(store, "x")
