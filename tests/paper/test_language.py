import csv

from paper import language


def row(method, rate, seed, validation, test, mlp="gated"):
    return {"mlp": mlp, "method": method, "rate": rate, "seed": seed, "validation": validation, "test": test} | {
        "params": 500_000
    }


def test_the_rate_is_chosen_on_the_validation_text():
    rows = [
        *(row("S3D", 0.001, seed, 2.0, 1.0) for seed in (0, 1)),
        *(row("S3D", 0.003, seed, 1.5, 3.0 + 0.2 * seed) for seed in (0, 1)),
    ]
    assert language.table(rows).splitlines()[2] == "| gated | S3D | 0.003 | 2 | 0.500 | 3.100 ± 0.141 |"


def test_a_rate_that_one_easy_seed_is_done_of_does_not_win():
    rows = [row("S3D", 0.001, 0, 1.0, 1.0), row("S3D", 0.003, 0, 1.5, 1.5), row("S3D", 0.003, 1, 2.0, 2.0)]
    assert language.table(rows).splitlines()[2].startswith("| gated | S3D | 0.003 | 2 |")


def test_the_last_network_of_a_run_counts():
    rows = [row("S3D", 0.001, 0, 4.0, 4.0), row("S3D", 0.001, 0, 2.0, 2.0)]
    assert language.table(rows).splitlines()[2] == "| gated | S3D | 0.001 | 1 | 0.500 | 2.000 |"


def test_the_command_trains_and_prints(tmp_path, capsys):
    settings = ["--steps", "1", "--seeds", "0", "--rates", "0.001", "--mlps", "plain", "--methods", "scratch"]
    language.main([*settings, "--out", str(tmp_path)])
    assert "| plain | scratch | 0.001 | 1 |" in capsys.readouterr().out
    assert (tmp_path / "language.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "language.csv").open()))
    assert len(rows) == 1
    assert 3 < float(rows[0]["test"]) < 8
