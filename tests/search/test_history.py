from nni_s3d.search.history import history
from nni_s3d.search.store import Store
from nni_s3d.search.trial import run
from nni_s3d.tasks.task import read_task
from tests import small_task


def test_it_is_the_lineage_up_to_the_trials_own_network(grown):
    path, folder, trials = grown
    task, store = read_task(path.parent / "task.yml"), Store(str(folder))
    for step, (parameters, _) in enumerate(trials):
        found = history(parameters, task, store)
        assert [network.metrics for network in found] == [metrics for _, metrics in trials[: step + 1]]


def test_plain_widths_have_no_ancestors(tmp_path):
    small_task.write(tmp_path)
    task, store = read_task(tmp_path / "task.yml"), Store(str(tmp_path / "store"))
    assert history(task.space().low, task, store) == []
    metrics = run(task.space().low, task, store)
    (network,) = history({name: float(width) for name, width in task.space().low.items()}, task, store)
    assert network.metrics == metrics
