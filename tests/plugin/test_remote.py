"""Trials on another machine: NNI's remote training service, over a real OpenSSH server on this one.

Run with `pytest -m slow tests/plugin/test_remote.py`.
"""

import sys
from pathlib import Path

import pytest
import yaml

from nni_s3d.report.nni_database import read_trials
from nni_s3d.report.nni_experiments import find_experiment
from nni_s3d.search.experiment import read_experiment, run
from nni_s3d.search.store import Store
from tests import small_task
from tests.browser import until
from tests.nni_experiment import ONE_THREAD, ROOT, Experiment
from tests.ssh_server import ssh_server


def content(store, names):
    """Return some files of all folders of a store, wherever it is."""
    keys = [key for key in store.folders() if key != "lineages"]
    return {(key, name): store.read_bytes(f"{key}/{name}") for key in keys for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["path", "url"])
def test_a_lineage_grows_on_another_machine(tmp_path, place, request):
    (tmp_path / "task").mkdir()
    path = small_task.write(tmp_path / "task", steps=3)
    url, told = str(tmp_path / "shared"), {}
    if place == "url":
        url, told = request.getfixturevalue("bucket")
    with ssh_server(tmp_path) as server:
        config = yaml.safe_load(path.read_text())
        told |= {"NNI_S3D_STORE": url, "PYTHONPATH": str(ROOT), **ONE_THREAD}
        variables = " ".join(f"{name}={value}" for name, value in told.items())
        config |= {
            "searchSpaceFile": str(path.parent / "space.json"),
            "trialCodeDirectory": str(path.parent),
            "trialCommand": f"{variables} {sys.executable} -m nni_s3d.plugin.trial task.yml",
            "nniManagerIp": "127.0.0.1",
            "trainingService": {
                "platform": "remote",
                "machineList": [
                    {
                        "host": "127.0.0.1",
                        "port": server.port,
                        "user": server.user,
                        "sshKeyFile": str(server.key),
                        "pythonPath": str(Path(sys.executable).parent),
                    }
                ],
            },
        }
        config["tuner"]["codeDirectory"] = str(path.parent)
        with Experiment(tmp_path, config, **told) as experiment:
            until(lambda: experiment.status in ("DONE", "ERROR"), 400)
            assert experiment.status == "DONE"
            trials = read_trials(find_experiment(experiment.id, tmp_path / "nni-experiments"))
    said = [path.read_text() for path in (tmp_path / "remote").rglob("trial.stderr")]
    assert [trial.status for trial in trials] == ["SUCCEEDED"] * 4, said
    here = Store(str(tmp_path / "here"))
    steps = list(run(read_experiment(path), here))
    assert [trial.metrics["default"] for trial in trials] == [metrics["default"] for _, metrics in steps]
    names = ("weights.safetensors", "metrics.json", "spec.json")
    assert content(Store(url), names) == content(here, names)


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a local server that speaks S3: its URL, and what a process must be told to find it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    made = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    told = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    import boto3

    boto3.client("s3").create_bucket(Bucket="nets")
    yield "s3://nets/experiment", told
    made.stop()
