import pytest

from nni_s3d.compare.figure import draw


@pytest.mark.parametrize("part", ["all", "one seed", "one network"])
def test_it_is_drawn(rows, part, tmp_path):
    some = {"all": rows, "one seed": rows[rows["seed"] == 0], "one network": rows[:1]}[part]
    draw(some, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
