import pytest

from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from tests import small_task

BEFORE_DECAY = {"training": small_task.TASK["training"] | {"schedule": "wsd", "decay": 0.4, "warmup_epochs": 0.5}}


@pytest.fixture(
    scope="session",
    params=[
        {"method": "split", "phase_budget": "epochs"},
        {"method": "new_neurons", "epochs": 4},
        {"task": BEFORE_DECAY, "epochs": [2, 4, 6], "shrink": 0.5, "perturb": 0.1},
    ],
    ids=["split", "new_neurons", "before_decay"],
)
def grown(request, tmp_path_factory):
    """A finished experiment: its file, its store and what it yielded."""
    folder = tmp_path_factory.mktemp("grown")
    path = small_task.write(folder, **request.param)
    return path, folder / "store", list(run(read_experiment(path), Store(str(folder / "store"))))


@pytest.fixture(params=["path", "url"])
def store(request, tmp_path):
    """An empty store, on disk and in memory."""
    return Store(str(tmp_path / "s") if request.param == "path" else f"memory://{tmp_path.name}")
