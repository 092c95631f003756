"""Two processes are one, and what ends one of them ends both in one line."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.train.parallel import environment_alone, joined
from tests.cli.command import environment
from tests.train.toy_training import TORCHRUN

TOGETHER = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
# What a process would wait for another without being told of its patience.
dist.distributed_c10d.default_pg_timeout = timedelta(seconds=2)
from qwen_eval.errors import UserError
from qwen_eval.train.parallel import joined
with joined() as world:
    assert world.sum(world.rank + 1, 10) == [3, 20]
    assert world.gather(f"of {world.rank}") == ["of 0", "of 1"]
    with world.agreed():
        time.sleep(6 * (world.rank == 0))
    # One write each: the two processes share the pipe.
    sys.stdout.write(f"{world.rank} went on\\n")
    sys.stdout.flush()
    for wrong in (0, 1):
        try:
            with world.agreed():
                if world.rank == wrong:
                    raise UserError(f"{wrong} is wrong")
        except UserError as error:
            assert str(error) == f"{wrong} is wrong"
        else:
            raise AssertionError("one went on alone")
    try:
        with world.agreed():
            raise UserError("the last word")
    except UserError as error:
        if world.rank == 0:
            print(error, file=sys.stderr, flush=True)
        raise
"""


@pytest.mark.slow
def test_processes_wait_and_fail_together(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    done = subprocess.run(
        [*TORCHRUN, "2", str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert sorted(done.stdout.split("\n")) == ["", "0 went on", "1 went on"], done.stderr
    assert done.returncode == 1
    assert done.stderr.count("the last word\n") >= 1
    assert "one went on alone" not in done.stderr
    assert "[rank1]" not in done.stderr, "the second process has nothing to say"


def test_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with joined() as world:
        assert (world.rank, world.size) == (0, 1)
        assert world.sum(1.5, 2) == [1.5, 2]
        assert world.gather("x") == ["x"]
        with pytest.raises(UserError, match="mine"), world.agreed():
            raise UserError("mine")
        began = time.monotonic()
    with pytest.raises(UserError), joined():
        raise UserError("at once")
    assert time.monotonic() - began < 2


def test_nothing_of_torchrun_goes_on_to_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_NAME"):
        monkeypatch.setenv(name, "1")
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_MAX_RESTARTS"):
        monkeypatch.setenv(name, "1")
    assert environment_alone() == before
