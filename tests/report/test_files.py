import sys

import pandas as pd
import pytest

from nni_s3d.errors import ReportError, S3DError
from nni_s3d.report import files
from nni_s3d.report.files import write_files
from nni_s3d.report.table import read_frame
from tests.fresh_process import loaded_by
from tests.report.fake_nni import Nni


def drawn(frame: pd.DataFrame) -> list[dict[str, list[tuple[float, float]]]]:
    """Return by panel the points of every line by its label."""
    panels = files._figure(frame).axes
    return [{str(line.get_label()): list(line.get_xydata()) for line in axes.get_lines()} for axes in panels]


def test_write_gives_a_csv_and_a_png(growth, tmp_path):
    frame = read_frame(experiments_dir=growth.root)
    written = write_files(frame, tmp_path / "new" / "folder")
    assert written.csv.parent == written.png.parent == tmp_path / "new" / "folder"
    back = pd.read_csv(written.csv, keep_default_na=False, na_values={c: [""] for c in frame.select_dtypes("number")})
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    assert ",1000,40000,90000,10000000,10000000," in written.csv.read_text()
    assert written.png.read_bytes().startswith(b"\x89PNG")


def test_a_name_in_letters_that_the_font_lacks_is_drawn(growth, tmp_path, recwarn):
    frame = read_frame(experiments_dir=growth.root)
    write_files(frame.assign(lineage="\u6f00"), tmp_path)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_the_plot_has_a_line_for_every_lineage(growth):
    params, macs, search = drawn(read_frame(experiments_dir=growth.root))
    assert set(params) == set(macs) == set(search) == {"c1-m2-s0", "c1.3-m2-s0", "best on validation"}
    assert [tuple(point) for point in params["c1.3-m2-s0"]] == [(1000, 0.6), (1500, 0.8)]
    assert [tuple(point) for point in search["c1.3-m2-s0"]] == [(2e7, 0.6), (3.5e7, 0.8)]
    assert [tuple(point) for point in macs["best on validation"]] == [(60_000, 0.8)]


def test_the_plot_has_the_running_best_of_plain_widths(plain):
    params, macs, search = drawn(read_frame(experiments_dir=plain.root))
    assert set(params) == set(macs) == {"trials", "best on validation"}
    assert [y for _, y in search["trials"]] == [0.4, 0.7, 0.6, 0.9, 0.8]
    assert [y for _, y in search["best so far"]] == [0.4, 0.7, 0.7, 0.9, 0.9]


def test_the_axes_of_the_plot_have_units(plain):
    frame = read_frame(experiments_dir=plain.root)
    frame["params"] *= [1, 2, 3, 4, 40]
    params, macs, search = files._figure(frame).axes
    assert [axes.get_xlabel().split()[0] for axes in (params, macs, search)] == ["parameters", "MACs", "search"]
    assert params.get_xscale() == "log"  # more than a decade
    assert macs.get_xscale() == "linear"
    assert params.xaxis.get_major_formatter()(20_000) == "20k"


def test_a_panel_without_numbers_says_so(tmp_path):
    Nni(tmp_path).trial(0, {"conv0": 4}, 0.25, end=20)
    panels = files._figure(read_frame(experiments_dir=tmp_path)).axes
    assert [axes.texts[0].get_text() for axes in panels] == ["not reported"] * 3


def test_without_matplotlib_the_numbers_are_written_all_the_same(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(S3DError, match=r'pip install "nni_s3d\[plots\]" \(the numbers are in .*trials.csv\)'):
        write_files(read_frame(experiments_dir=plain.root), tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 5


def test_matplotlib_is_imported_only_to_plot():
    assert "matplotlib" not in loaded_by("import nni_s3d.report.files")


def test_a_place_that_is_no_folder_is_named(growth, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ReportError, match="file: expected a folder to write to, got: "):
        write_files(read_frame(experiments_dir=growth.root), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
