import http.client
import threading
import urllib.request

import pytest

pytest.importorskip("plotly", reason="plotly, of the extra plots, is not installed")

from nni_s3d.errors import ConfigError
from nni_s3d.report import live as live_module
from nni_s3d.report.live import LivePage, server
from tests.report.fake_nni import Nni, metrics, spec


@pytest.fixture
def served(tmp_path, monkeypatch):
    """An experiment that has just started, and the address of its page."""
    monkeypatch.setattr(live_module, "_FRESH", 0.0)
    nni = Nni(tmp_path, status="RUNNING")
    with server(LivePage([None], tmp_path), 0) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield nni, made.server_address
        made.shutdown()
        thread.join()


def get(address, path="/"):
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}") as answer:
        return answer.read().decode()


def test_the_page_follows_the_experiment(served):
    nni, address = served
    assert "expected a finished trial, found no trial" in get(address)
    assert 'http-equiv="refresh"' in get(address)
    nni.trial(0, spec(0), metrics(0.6, 0), end=20)
    first = get(address)
    assert "1 finished trial." in first
    assert f'http-equiv="refresh" content="{live_module.REFRESH}"' in first
    nni.trial(1, spec(1, width=12), metrics(0.8, 1), end=40)
    nni.set_status("DONE")
    last = get(address)
    assert "2 finished trials. abcd1234 is DONE" in last
    assert "http-equiv" not in last


def test_it_is_for_this_machine_alone_and_has_one_page(served):
    _, address = served
    assert address[0] == "127.0.0.1"
    connection = http.client.HTTPConnection(*address)
    connection.request("GET", "/../../etc/passwd")
    assert connection.getresponse().status == 404


def test_a_page_is_shown_again_for_a_moment(plain, monkeypatch):
    page, looks = LivePage([None], plain.root), []
    monkeypatch.setattr(page, "_look", lambda: looks.append(1) or "page")
    assert [page.html(), page.html()] == ["page", "page"]
    assert len(looks) == 1


def test_a_port_that_is_taken_is_named(served):
    _, address = served
    with pytest.raises(ConfigError, match=f"--live: expected a free port, got {address[1]}: "):
        server(LivePage([None]), address[1])
    with pytest.raises(ConfigError, match="--live: expected a free port, got 99999: "):
        server(LivePage([None]), 99999)
