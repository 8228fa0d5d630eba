"""An OpenSSH server of its own on this machine, with a home of its own, that takes one key and ends with the test."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser import until
from tests.nni_experiment import free_port


@dataclass(frozen=True)
class Server:
    """Where it listens, and who may come in."""

    port: int
    user: str
    key: Path


@contextmanager
def ssh_server(folder: Path) -> Iterator[Server]:
    """Start a server, or skip the test where that cannot be."""
    sshd, keygen = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"), shutil.which("ssh-keygen")
    if not (sshd and keygen):
        pytest.skip("OpenSSH's server is not installed (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "remote").mkdir()
    shutil.copy(folder / "user.pub", folder / "authorized")
    port = free_port()
    settings = [
        "ListenAddress 127.0.0.1",
        f"Port {port}",
        f"HostKey {folder}/host",
        f"AuthorizedKeysFile {folder}/authorized",
        f"PidFile {folder}/pid",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin yes",
        "PubkeyAcceptedAlgorithms +ssh-rsa",
        "HostKeyAlgorithms +ssh-rsa",
        "KexAlgorithms +diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha256",
        "Subsystem sftp internal-sftp",
        f"SetEnv HOME={folder}/remote",
    ]
    (folder / "sshd_config").write_text("\n".join(settings) + "\n")
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        until(lambda: server.poll() is not None or _listens(port), 20)
        if server.poll() is not None:
            pytest.skip(f"OpenSSH's server does not start here: {(folder / 'sshd.log').read_text().strip()}")
        yield Server(port, getpass.getuser(), folder / "user")
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
