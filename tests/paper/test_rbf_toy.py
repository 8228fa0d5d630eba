import pandas as pd
import pytest

pytest.importorskip("matplotlib")
from paper.rbf_toy import main, run


def rbf_toy(*arguments):
    main(list(arguments))


def test_rbf_toy_writes_its_table_and_its_panels(tmp_path):
    rbf_toy("--seeds", "0", "--neurons", "5", "--iterations", "30", "--out", str(tmp_path))
    frame = pd.read_csv(tmp_path / "rbf_toy.csv")
    assert list(frame) == ["seed", "method", "copies", "c", "step", "neurons", "iterations", "loss", "gain"]
    by_copies = {"S2D", *(f"m = {m}, c = 3" for m in (2, 3, 4)), "m = 2, rescued by 4"}
    assert set(frame["method"]) == by_copies | {"m = 2, c = 1.3", "m = 2, c = 5", "m = 3, Theorem 2.2"}
    assert frame[frame["method"] == "m = 2, c = 3"]["neurons"].tolist() == [1, 2, 3, 4, 5]
    assert frame[frame["method"] == "m = 3, c = 3"]["neurons"].tolist() == [1, 3, 5]
    assert (tmp_path / "rbf_toy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_signed_splittings_escape_where_s2d_is_stuck(tmp_path):
    rbf_toy("--seeds", "0", "1", "2", "--iterations", "3000", "--out", str(tmp_path))
    final = pd.read_csv(tmp_path / "rbf_toy.csv").groupby(["seed", "method"]).last()["loss"].unstack()
    assert (final["m = 2, rescued by 4"] < 1e-3).all(), final
    for copies in ("m = 3, c = 3", "m = 4, c = 3"):
        assert (final[copies] < final["S2D"] / 100).sum() >= 2, final


def test_seeds_that_are_done_are_not_run_again(tmp_path, monkeypatch):
    settings = ["--neurons", "2", "--iterations", "5", "--out", str(tmp_path)]
    rbf_toy("--seeds", "0", "1", *settings)
    whole, ran = (tmp_path / "rbf_toy.csv").read_text(), []
    monkeypatch.setitem(main.__globals__, "run", lambda *given: ran.append(given[1]) or run(*given))
    rbf_toy("--seeds", "0", "1", *settings)
    assert set(ran) == {0}
    assert (tmp_path / "rbf_toy.csv").read_text() == whole


def test_some_of_the_methods_have_no_figure(tmp_path):
    chosen = ["m = 2, c = 3", "m = 3, Theorem 2.2"]
    settings = ["--seeds", "1", "--neurons", "3", "--iterations", "5", "--out", str(tmp_path)]
    rbf_toy("--methods", *chosen, *settings)
    assert pd.read_csv(tmp_path / "rbf_toy.csv")["method"].unique().tolist() == chosen
    assert not (tmp_path / "rbf_toy.png").exists()
