"""Control groups: found where the kernel says they are, limited, emptied and removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_eval.sandbox import cgroup
from qwen_eval.sandbox.cgroup import Cgroup, Limits, own_groups, sweep
from qwen_eval.sandbox.kernel import ConfineError
from tests.sandbox.programs import wait_for

MIB = 2**20
LIMITS = Limits(memory=64 * MIB, processes=8, cores=0.5)

# Lines of mountinfo: root of the mount, its place, then " - ", kind and options.
V1 = """\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
V2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
INSIDE = "30 25 0:26 /docker/abc /sys/fs/cgroup ro - cgroup cgroup rw,memory\n"


def proc(folder: Path, mounts: str, groups: str) -> str:
    """A /proc of this process, as far as it tells of control groups."""
    (folder / "mountinfo").write_text(mounts)
    (folder / "cgroup").write_text(groups)
    return str(folder)


@pytest.mark.parametrize(
    ("mounts", "groups", "found"),
    [
        (
            V1,
            "9:name=systemd:/\n8:pids:/a\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/x\n",
            {
                "pids": "/sys/fs/cgroup/pids/a",
                "memory": "/sys/fs/cgroup/memory/a/b",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
            },
        ),
        (V2, "0::/user.slice/a.scope\n", {"": "/sys/fs/cgroup/user.slice/a.scope"}),
        (INSIDE, "4:memory:/docker/abc/d\n", {"memory": "/sys/fs/cgroup/d"}),
        (INSIDE, "4:memory:/\n", {"memory": "/sys/fs/cgroup"}),
        (V2.replace("/sys/fs/cgroup", "/a\\040b"), "0::/\n", {"": "/a b"}),
        ("30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", "0::/\n", {}),
    ],
    ids=["version 1", "version 2", "below a container", "outside of it", "a blank", "none"],
)
def test_groups_are_where_the_kernel_says(
    tmp_path: Path, mounts: str, groups: str, found: dict[str, str]
) -> None:
    assert own_groups(proc(tmp_path, mounts, groups)) == {k: Path(v) for k, v in found.items()}


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Folders in the place of control groups; tests put in what is to be found."""
    found: dict[str, Path] = {}
    monkeypatch.setattr(cgroup, "own_groups", lambda: found)
    return found


def test_version_2_takes_the_nearest_group_that_hands_controllers_down(
    trees: dict[str, Path], tmp_path: Path
) -> None:
    slice_ = tmp_path / "user.slice"
    trees[""] = slice_ / "session.scope"
    trees[""].mkdir(parents=True)
    for folder, handed in ((tmp_path, "cpu memory pids"), (slice_, "pids memory"), (trees[""], "")):
        (folder / "cgroup.subtree_control").write_text(handed)
    make = Path.mkdir

    def like_the_kernel(path: Path) -> None:
        make(path)
        for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"):
            (path / name).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", like_the_kernel)
        group = Cgroup.make("x", LIMITS)
    (folder,) = group.folders
    assert (group.version, folder.parent) == (2, slice_)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "pids.max": "8",
        "cpu.max": "50000 100000",
    }
    (slice_ / "cgroup.subtree_control").write_text("pids")
    (tmp_path / "cgroup.subtree_control").write_text("")
    with pytest.raises(
        ConfineError, match="no group above this process hands memory and pids down"
    ):
        Cgroup.make("y", LIMITS)


def test_a_folder_that_may_not_be_made_is_told(trees: dict[str, Path], tmp_path: Path) -> None:
    trees["memory"] = tmp_path / "not there"
    with pytest.raises(ConfineError, match=r"^cgroup: version 1: no such file or directory$"):
        Cgroup.make("x", LIMITS)


def test_no_tree_and_half_a_tree_are_told(trees: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfineError, match="no tree of control groups is mounted"):
        Cgroup.make("x", LIMITS)
    trees["memory"] = tmp_path
    (tmp_path / "memory.limit_in_bytes").touch()
    with pytest.raises(ConfineError, match="no pids controller is mounted"):
        Cgroup.make("x", LIMITS)


def test_what_cannot_be_named_is_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 lists a process of another pid namespace as 0, and kill(2) of 0 is for all of the
    caller's own process group."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    folder = tmp_path / "group"
    folder.mkdir()
    (folder / "cgroup.procs").write_text(f"0\n{child.pid}\n0\n")
    killed, kill = [], os.kill

    def note(pid: int, number: int) -> None:
        killed.append(pid)
        assert pid > 0
        kill(pid, number)
        (folder / "cgroup.procs").unlink()  # as the kernel's file, it goes with the folder

    monkeypatch.setattr(os, "kill", note)
    Cgroup(2, [folder]).remove()
    assert killed == [child.pid]
    assert child.wait(20) == -signal.SIGKILL
    assert not folder.exists()


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """A real one, where this process may make it."""
    try:
        made = Cgroup.make("test", LIMITS)
    except ConfineError as error:
        pytest.skip(str(error))
    yield made
    made.remove()


def held(group: Cgroup, program: str) -> subprocess.Popen[str]:
    """A process that waits for a line before it goes on, inside the group."""
    command = [sys.executable, "-S", "-c", f"input()\n{program}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    group.add(process.pid)
    return process


def test_memory_is_limited(group: Cgroup) -> None:
    program = "x = bytearray({} << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('done')"
    out, _ = held(group, program.format(16)).communicate("\n", timeout=60)
    assert out == "done\n", "the control"
    greedy = held(group, program.format(256))
    out, _ = greedy.communicate("\n", timeout=60)
    assert (out, greedy.returncode) == ("", -9)


def test_processes_are_limited(group: Cgroup) -> None:
    program = """
import os, time
made = 0
try:
    for made in range(100):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
except BlockingIOError:
    print(made)
"""
    process = held(group, program)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "7\n", "with itself it has eight"
    wait_for(lambda: len(group.processes()) == 7)
    group.remove()
    process.wait(timeout=60)
    assert group.folders == []


def test_what_a_killed_process_left_is_swept_up(group: Cgroup) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    own = f"-{os.getpid()}-"
    stale = [f.with_name(f.name.replace(own, f"-{ended.pid}-")) for f in group.folders]
    for folder in stale:
        folder.mkdir()
    sweep()
    assert not any(folder.exists() for folder in stale)
    assert all(folder.exists() for folder in group.folders), f"{os.getpid()} is alive"
