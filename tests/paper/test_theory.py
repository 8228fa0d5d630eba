import pandas as pd
import pytest

pytest.importorskip("matplotlib")
from paper.theory import main
from paper.theory_figure import neurons_at_most


def test_theory_keeps_its_bounds(tmp_path, monkeypatch):
    main(["--seeds", "2", "--target", "0.8", "--out", str(tmp_path)])
    frame = pd.read_csv(tmp_path / "theory.csv")
    assert (frame["lemma"] <= 1).all()
    assert (frame["loss"] <= frame["bound"] + 1e-12).all()
    last = frame.groupby(["copies", "training"]).last()
    assert len(last) == 6
    assert (last["loss"] <= last["target"]).all()
    assert (last["step"] <= last["splits at most"]).all()
    for copies in (3, 4):  # from one neuron
        assert (last.loc[copies, "neurons"] == 1 + (copies - 1) * last.loc[copies, "step"]).all()
    assert last.loc[(2, 0), "neurons"] == last.loc[(2, 0), "splits at most"] + last.loc[(2, 0), "step"]
    assert last.loc[(2, 0), "step"] > 1
    for (copies, _), run in last.iterrows():
        assert run["neurons"] <= neurons_at_most(copies, run["splits at most"])
    written = (tmp_path / "theory.csv").read_text()
    monkeypatch.setitem(main.__globals__, "run", None)  # what is done is not run again
    main(["--seeds", "2", "--target", "0.8", "--out", str(tmp_path)])
    assert (tmp_path / "theory.csv").read_text() == written
    assert (tmp_path / "theory.png").read_bytes().startswith(b"\x89PNG")
