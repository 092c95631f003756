"""The proving ground: what attacks aim at, set up for them and taken down afterwards.

All of it belongs to whoever runs the bank, so an attack that got out would succeed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import string
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from qwen_eval.sandbox.cgroup import own_groups
from qwen_eval.sandbox.syscalls import MACHINES, numbers

# Folders that every user may write to.
_COMMON = ("/tmp", "/dev/shm")
_CALLS = re.compile(r"(?:call|reached)\([\"'](\w+)")


class Ground:
    """Targets of all kinds, by the names that programs know them by in `names`. Use as a context
    manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qwen-eval-ground-"))
        self.folder.chmod(0o777)
        # A process's name has 15 letters.
        self.process_name = f"qwen-{os.urandom(4).hex()}"
        self._shared = Path("/dev/shm", self.process_name)
        self._variable = self.process_name.upper()
        self._servers: list[socket.socket] = []
        self._victim: subprocess.Popen[bytes] | None = None
        self.names: dict[str, Any] = {}

    def __enter__(self) -> Ground:
        # Not a word of the program: what a program holds itself proves nothing.
        secret = f"secret-{os.urandom(8).hex()}"
        os.environ[self._variable] = secret
        self._victim = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
        self.names = {
            "harness": os.getpid(),
            "victim": self._victim.pid,
            "name": self.process_name,
            "variable": self._variable,
            "hostname": os.uname().nodename,
            "folder": str(self.folder),
            "secret": self._file("secret", 0o600, secret),
            "public": self._file("public", 0o644, secret),
            "common": self._file("common", 0o666, secret),
            "link": str(self.folder / "link"),
            "shared": str(self._shared),
            "repository": str(Path(__file__).absolute().parents[1] / "sandbox.py"),
            "group": _group_file(),
            **self._listen(),
        }
        os.symlink(secret, self.folder / "link")
        with suppress(OSError):
            self._shared.write_text(secret)
            self._shared.chmod(0o644)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for pid in self.alive():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        assert self._victim is not None
        self._victim.kill()
        self._victim.wait()
        os.environ.pop(self._variable, None)
        for path in (self._shared, *(Path(top, f"left-{self.process_name}") for top in _COMMON)):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def fill(self, program: str) -> str:
        """A program with this ground's own values in place of their names."""
        table = numbers(os.uname().machine) if os.uname().machine in MACHINES else {}
        called = {name: table[name] for name in _CALLS.findall(program) if name in table}
        values = {name: repr(value) for name, value in self.names.items()}
        return string.Template(program).safe_substitute(values, numbers=repr(called))

    def alive(self) -> list[int]:
        """The processes of this machine, contained or not, that took the name of this ground."""
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            with suppress(OSError):
                if path.read_text().strip() == self.process_name:
                    found.append(int(path.parts[2]))
        return found

    def left(self) -> list[str]:
        """What was left in the folder that everybody may write to."""
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("left"))

    def victim_lives(self) -> bool:
        """Whether the process outside still runs."""
        assert self._victim is not None
        return self._victim.poll() is None

    def _file(self, name: str, mode: int, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def _listen(self) -> dict[str, Any]:
        """Servers that answer, as far as this machine has their kinds of address."""
        path, queue = str(self.folder / "socket"), str(self.folder / "datagrams")
        abstract = "\0" + self.process_name
        kinds: list[tuple[str, int, int, Any]] = [
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, path),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, abstract),
            ("datagrams", socket.AF_UNIX, socket.SOCK_DGRAM, queue),
        ]
        addresses: dict[str, Any] = {}
        for name, family, kind, address in kinds:
            addresses[name] = address if family == socket.AF_UNIX else 9
            with suppress(OSError):
                server = socket.socket(family, kind)
                self._servers.append(server)
                server.bind(address)
                if kind == socket.SOCK_STREAM:
                    server.listen(64)
                bound = server.getsockname()
                addresses[name] = address if family == socket.AF_UNIX else bound[1]
        for place in (path, queue):
            with suppress(OSError):
                os.chmod(place, 0o777)
        return addresses


def _group_file() -> str:
    """A file of our own control group that decides who is in it."""
    folder = next(iter(own_groups().values()), Path("/sys/fs/cgroup"))
    return str(folder / "cgroup.procs")
