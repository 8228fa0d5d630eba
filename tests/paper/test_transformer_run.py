import pytest
import torch

import nni_s3d as s3d
from nni_s3d.search.store import Store
from paper import transformer_run
from paper.small_transformer import SmallTransformer
from paper.transformer_run import Job, Run, bits, loss_fn, rate_at, reset_copies, traced


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A tenth of the text, short phases and few samples."""
    text = transformer_run.read_text()
    short = transformer_run.Text(text.train[:5000], text.validation[:1000], text.test[:1000], text.characters)
    monkeypatch.setattr(transformer_run, "read_text", lambda: short)
    for name, value in {"SEED_WIDTH": 5, "BATCH": 4, "SAMPLES": 8, "CHECKPOINT": 20}.items():
        monkeypatch.setattr(transformer_run, name, value)


def rows_of(store, job):
    return store.read_json(f"{job.folder}/rows.json", "rows")["rows"]


@pytest.mark.parametrize("method", ["S3D", "S3D, shrunk", "new neurons", "random splits"])
def test_growing_goes_through_all_sizes_within_the_budget(tmp_path, method):
    store, job = Store(str(tmp_path)), Job("gated", method, 0.001, 0, 200)
    run = Run(job, store)
    run.carry_out()
    rows = rows_of(store, job)
    assert [row["neurons"] for row in rows] == [20, 32, 51, 82]
    assert [row["train_macs"] for row in rows] == sorted(row["train_macs"] for row in rows)
    assert rows[-1]["train_macs"] == pytest.approx(run.total, rel=0.1)
    assert not store.exists(f"{job.folder}/checkpoint.pt")


def test_scratch_has_the_last_size_from_the_start(tmp_path):
    store, job = Store(str(tmp_path)), Job("plain", "scratch", 0.001, 0, 6)
    Run(job, store).carry_out()
    (row,) = rows_of(store, job)
    assert row["neurons"] == 4 * round(5 * 1.6**3)
    assert row["train_macs"] == 3 * 4 * 6 * row["macs"]


def test_a_run_that_was_cut_off_ends_the_same(tmp_path, monkeypatch):
    job = Job("gated", "S3D", 0.001, 0, 120)
    whole, cut = Store(str(tmp_path / "whole")), Store(str(tmp_path / "cut"))
    Run(job, whole).carry_out()
    calls, drawn = iter(range(1000)), transformer_run.drawn

    def interrupted(*arguments):
        if next(calls) == 90:
            raise KeyboardInterrupt
        return drawn(*arguments)

    monkeypatch.setattr(transformer_run, "drawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Run(job, cut).carry_out()
    assert 0 < Run(job, cut).done < 120
    Run(job, cut).carry_out()
    assert rows_of(cut, job) == rows_of(whole, job)


def test_averages_of_copies_begin_with_zeros_and_those_of_old_neurons_stay():
    torch.manual_seed(0)
    model = SmallTransformer(20, 64, [6, 5, 7, 6], "gated", width=16, heads=2)
    optimizer, graph = torch.optim.AdamW(model.parameters()), traced(model)
    inputs = torch.randint(20, (2, 64))
    loss_fn(model(inputs), inputs).backward()
    optimizer.step()
    copies = {name: torch.ones(width, dtype=torch.int64) for name, width in graph.widths.items()}
    copies["blocks.0.mlp.w1"][2] = 3
    plan = s3d.plan_from_copies(graph, copies)
    result = s3d.split(model, graph, plan, 0.0, optimizer)
    state = result.optimizer_state
    reset_copies(state, result.model, result.graph, plan)
    place = {name: i for i, (name, _) in enumerate(result.model.named_parameters())}
    old = [0, 1, 2, 5, 6, 7]  # 3 and 4 are copies of 2
    for name, dim in (("w1", 0), ("w3", 0), ("w2", 1)):
        average = state["state"][place[f"blocks.0.mlp.{name}.weight"]]["exp_avg"].movedim(dim, 0)
        assert not average[[3, 4]].any()
        assert average[old].any(dim=1).all()
    untouched = state["state"][place["blocks.1.mlp.w1.weight"]]["exp_avg_sq"]
    assert torch.equal(untouched, optimizer.state[model.blocks[1].mlp.w1.weight]["exp_avg_sq"])


def test_the_rate_rises_stays_and_falls_to_zero():
    assert rate_at(0.0) < 0.01
    assert rate_at(0.02) == rate_at(0.5) == rate_at(0.85) == 1
    assert rate_at(0.925) == pytest.approx(0.5)
    assert rate_at(1.0) == 0


def test_bits_of_equal_scores_are_those_of_the_alphabet():
    class Equal(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(*x.shape, 32)

    assert bits(Equal(), torch.randint(32, (1000,))) == pytest.approx(5)
