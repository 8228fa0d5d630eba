"""The page of a report while its experiments run, for a browser on this machine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nni_s3d.errors import ConfigError, S3DError
from nni_s3d.report.nni_experiments import ENDED
from nni_s3d.report.page import page
from nni_s3d.report.records import read_records

_logger = logging.getLogger(__name__)
REFRESH = 10  # seconds between two looks of a browser
_FRESH = 2.0  # seconds for which a page is shown again as it is


class LivePage:
    """The page as it is now; browsers that ask at once get the same one."""

    def __init__(self, names: Sequence[str | None], experiments_dir: Path | None = None) -> None:
        self.names, self.experiments_dir = names, experiments_dir
        self._made, self._html, self._lock = -_FRESH, "", threading.Lock()

    def html(self) -> str:
        """Return the page, or one line on why there is none yet."""
        with self._lock:
            if time.monotonic() - self._made >= _FRESH:
                self._html, self._made = self._look(), time.monotonic()
            return self._html

    def _look(self) -> str:
        try:
            found = [read_records(name, self.experiments_dir) for name in self.names]
        except S3DError as error:  # nothing has finished yet
            refresh = f'<meta http-equiv="refresh" content="{REFRESH}">'
            return f'<!doctype html><meta charset="utf-8">{refresh}<title>nni-s3d</title><p>{escape(str(error))}</p>'
        over = all(records.status in ENDED for records in found)
        return page(found, 0 if over else REFRESH)


def server(live: LivePage, port: int) -> ThreadingHTTPServer:
    """Return a server of a page, bound to this machine alone.

    Raises:
        ConfigError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/":
                self.send_error(404)
                return
            content = live.html().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--live: expected a free port, got {port}: {error}") from error


def serve(names: Sequence[str | None], port: int, experiments_dir: Path | None = None) -> None:
    """Serve the page until Ctrl-C."""
    with server(LivePage(names, experiments_dir), port) as made:
        _logger.info("http://localhost:%d (on this machine alone; Ctrl-C ends it)", made.server_address[1])
        made.serve_forever()
