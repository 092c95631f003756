"""The server of a study as a process of its own, to be killed and started again."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.cli.command import PROGRAM, environment, qwen_eval


class Server:
    """`qwen-eval annotate serve` on a free port; `log` is what it said."""

    def __init__(self, study: Path, *flags: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.study = study
        self.flags = flags
        self.address = f"http://localhost:{self.port}"
        self.log = study.parent / "server.log"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ["annotate", "serve", str(self.study), "--port", str(self.port), *self.flags]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, *words], stdout=log, stderr=log, env=environment()
            )
        for _ in range(1200):
            assert self.process.poll() is None, self.log.read_text()
            try:
                urllib.request.urlopen(f"{self.address}/_stcore/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """As a machine does that loses its power."""
        self.process.kill()
        self.process.wait()

    def link(self, name: str, *flags: str) -> str:
        """An invitation."""
        done = qwen_eval("annotate", "invite", self.study, name, "--url", self.address, *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
