"""Whatever is damaged or lost in a store is made again, and the store ends with the same content."""

import json
import shutil

import pytest

from nni_s3d.errors import StoreError
from nni_s3d.search import trial
from nni_s3d.search.ancestors import Ancestors
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.lineage import outcome_path
from nni_s3d.search.store import Store
from nni_s3d.tasks.search_space import Space
from nni_s3d.tasks.task import read_task
from tests import small_task

WSD = {"training": small_task.TASK["training"] | {"schedule": "wsd", "decay": 0.4}}


def content(folder):
    """What a store holds, but for the notes of who has run which trial."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".trial.json", "state.json"))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An experiment with a branch, whose optimizer goes on from step to step: its folder and what it yielded."""
    folder = tmp_path_factory.mktemp("whole")
    path = small_task.write(folder, WSD, steps=1, branches={"s2d": {"c": 1}})
    return folder, list(run(read_experiment(path), Store(str(folder / "s"))))


def flipped(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(bytes(damaged))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def removed(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flipped, cut, removed])
def test_every_damaged_file_is_made_again(whole, tmp_path, damage, caplog):
    folder, steps = whole
    before = content(folder / "s")
    notes = ("split.json", "spectra.safetensors")  # which nothing depends on
    for number, name in enumerate(name for name in before if not name.endswith(notes)):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        caplog.clear()
        damage(copy / "s" / name)
        assert list(run(read_experiment(copy / "s3d.yml"), Store(str(copy / "s")))) == steps, name
        assert content(copy / "s") == before, name
        named = f"{copy}/s/{name}: expected a file as this package wrote it" in caplog.text
        assert named or damage is removed or name.count("/") == 2  # an outcome, which nobody reads before it is anew
        shutil.rmtree(copy)


def test_a_file_of_another_trial_is_made_again(whole, tmp_path):
    folder, steps = whole
    before = content(folder / "s")
    one, other = [name for name in before if name.endswith("/weights.safetensors")][:2]
    shutil.copytree(folder, tmp_path / "copy")
    shutil.copy(folder / "s" / one, tmp_path / "copy" / "s" / other)
    assert list(run(read_experiment(tmp_path / "copy" / "s3d.yml"), Store(str(tmp_path / "copy" / "s")))) == steps
    assert content(tmp_path / "copy" / "s") == before


@pytest.mark.parametrize("kept", [[], ["task.json"]])
def test_the_last_step_alone_brings_back_all_before_it(whole, tmp_path, kept):
    """As when a trial starts on another machine, and the store was lost but for the settings of the lineages."""
    folder, steps = whole
    for name in ("task.yml", "space.json", "s3d.yml"):
        shutil.copy(folder / name, tmp_path)
    settings = [path.relative_to(folder / "s") for path in (folder / "s" / "lineages").glob("*.json")]
    for name in [*kept, *settings]:
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "s" / name, tmp_path / "s" / name)
    parameters, metrics = next(step for step in steps if step[0]["lineage"].endswith("-s2d"))
    assert trial.run(parameters, read_task(tmp_path / "task.yml"), Store(str(tmp_path / "s"))) == metrics
    before, after = content(folder / "s"), content(tmp_path / "s")
    assert len(after) > len(before) / 2
    assert all(before[name] == after[name] for name in after)


def test_a_checkpoint_that_is_damaged_is_trained_anew(whole, tmp_path, caplog):
    folder, steps = whole
    shutil.copytree(folder, tmp_path / "copy")
    store = tmp_path / "copy" / "s"
    key = json.loads((store / outcome_path(steps[0][0]["lineage"], 0)).read_text())["key"]
    (store / key / "metrics.json").unlink()
    (store / key / "checkpoint.pt").write_bytes(b"junk")
    assert list(run(read_experiment(tmp_path / "copy" / "s3d.yml"), Store(str(store)))) == steps
    assert "checkpoint.pt: expected a file as this package wrote it, got one without a checksum" in caplog.text
    assert content(store) == content(folder / "s")


def test_a_step_that_nothing_leads_to_is_refused(tmp_path):
    store = Store(str(tmp_path))
    store.write_json(outcome_path("x", 0), {"key": "0", "next": None})
    ancestors = Ancestors(store, Space.parse(small_task.SPACE), lambda parameters: None)
    with pytest.raises(StoreError, match=r"0\.json: expected the parameters of step 1, got None"):
        ancestors.outcome("x", 1)


def test_a_name_like_that_of_a_branch_is_none_by_itself(tmp_path):
    ran = []
    ancestors = Ancestors(Store(str(tmp_path)), Space.parse(small_task.SPACE), ran.append)
    ancestors.restore_network("a.1-x", 0)
    assert [(parameters["lineage"], parameters["step"]) for parameters in ran] == [("a.1-x", 0)]


def test_many_steps_that_were_pruned_are_made_again_one_after_another(tmp_path):
    """Each would call for the one before: two hundred calls within calls are more than Python bears."""
    store, ran = Store(str(tmp_path)), []
    for step in range(300):
        following = {**dict.fromkeys(small_task.NAMES, 3), "step": step + 1}
        store.write_json(outcome_path("x", step), {"key": str(step), "next": following})
    store.write_json("100/weights.safetensors", {})
    ancestors = Ancestors(store, Space.parse(small_task.SPACE), lambda parameters: ran.append(parameters["step"]))
    ancestors.restore_network("x", 299)
    assert ran == list(range(100, 300))
