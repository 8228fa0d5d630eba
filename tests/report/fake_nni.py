"""What NNI 3.0 writes of an experiment: a small database of the same schema, and an entry in the list."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

SCHEMA = """
create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
    sequenceId integer, message text, environmentId text);
create index TrialJobEvent_trialJobId on TrialJobEvent(trialJobId);
create index TrialJobEvent_event on TrialJobEvent(event);
create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer, data text);
create index MetricData_trialJobId on MetricData(trialJobId);
create index MetricData_type on MetricData(type);
create table ExperimentProfile (params text, id text, execDuration integer, startTime integer, endTime integer,
    logDir text, nextSequenceId integer, revision integer);
create index ExperimentProfile_id on ExperimentProfile(id);
"""
START = 1_795_474_971_226


class Nni:
    """Writes what NNI writes for one experiment; seconds count from its start."""

    def __init__(self, root: Path, name: str = "abcd1234", status: str = "DONE", **entry: object) -> None:
        self.root, self.name = root, name
        self.set_status(status, **entry)
        self.database = Path(self.entry["logDir"], name, "db", "nni.sqlite")
        self.database.parent.mkdir(parents=True)
        self.execute(SCHEMA)

    @property
    def entry(self) -> dict[str, object]:
        return json.loads((self.root / ".experiment").read_text())[self.name]

    def set_status(self, status: str, **more: object) -> None:
        path = self.root / ".experiment"
        entries = json.loads(path.read_text()) if path.exists() else {}
        new = {"id": self.name, "port": 8080, "startTime": START, "endTime": "N/A", "platform": "local", "tag": []}
        new |= {"experimentName": "", "pid": os.getpid(), "webuiUrl": [], "logDir": str(self.root), "prefixUrl": None}
        entries[self.name] = new | entries.get(self.name, {}) | more | {"status": status}
        path.write_text(json.dumps(entries, indent=4))

    def execute(self, script: str) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(script)

    def _insert(self, name: str, *values: object) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(f"insert into {name} values ({','.join('?' * len(values))})", values)

    def event(self, trial: str, event: str, at: float, number: int | None = None, parameters: object = None) -> None:
        data = None
        if parameters is not None:
            data = {"parameter_id": number, "parameter_source": "algorithm", "parameters": parameters}
            data = json.dumps(data | {"parameter_index": 0})
        folder = f"{self.root}/{self.name}/environments/local-env/trials/{trial}"
        when = START + round(1000 * at)
        self._insert("TrialJobEvent", when, trial, event, data, folder, number, None, "local-env")

    def metric(self, trial: str, number: int, value: object, kind: str = "FINAL") -> None:
        self._insert("MetricData", START, trial, str(number), kind, 0, json.dumps(json.dumps(value)))

    def config(self, content: object, revision: int = 0) -> None:
        self._insert("ExperimentProfile", json.dumps(content), self.name, 0, START, None, str(self.root), 0, revision)

    def trial(self, number: int, parameters: object, value: object, end: float, status: str = "SUCCEEDED") -> str:
        """Write a whole trial, which runs for ten seconds."""
        trial = f"trial{number}"
        self.event(trial, "RUNNING", end - 10, number, parameters)
        self.metric(trial, number, 0.1, "PERIODICAL")
        if value is not None:
            self.metric(trial, number, value)
        if status != "RUNNING":
            self.event(trial, status, end, number)
        return trial


def spec(step: int, lineage: str = "c1.3-m2-s0", width: int = 8) -> dict[str, object]:
    return {"conv0": width, "step": step, "lineage": lineage, "params": 9, "macs": 90}


def metrics(accuracy: float, step: int = 0, test: float = 0.5, size: int = 1000) -> dict[str, float]:
    cost = {"params": size, "macs": 40 * size, "flops": 90 * size, "train_macs": 10_000 * size}
    return {"default": accuracy, "test_accuracy": test, "loss": 1 - accuracy, **cost, "step": step}
