"""The README's commands run, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import environment, qwen_eval
from tests.cli.thin_mirror import thinned
from tests.model.toy_folder import toy_checkpoint

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
# These need a network or a server; what they would do is asked instead.
FAR = ("hf:", "openai:", "models pull smollm2")
# These take long, or what comes of them; tests/cli/test_from_raw_text.py, test_train_reward.py,
# test_train_ppo.py and test_context.py run them small.
LONG = (
    "train pretrain tiny",
    "train sft",
    "train reward",
    "train ppo",
    "convert",
    "qwen-eval context",
    "annotate serve",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Path:
    """A folder with what the README's commands name: ./data and ./my-checkpoint."""
    folder: Path = tmp_path_factory.mktemp("home")
    thinned(mirror, folder / "data")
    toy_checkpoint(folder / "my-checkpoint", max_length=8192, trained_length=8192)
    (rules,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (folder / "gate.yaml").write_text(rules, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("qwen-eval")])
def test_command(command: str, home: Path, smollm2: Path) -> None:
    words = shlex.split(command)[1:]
    if words[0] == "run":
        # Fewer questions; the last --limit counts.
        words += ["--limit", "3"] if "--plan" not in words else []
        if any(far in command for far in FAR):
            words.append("--plan")
    elif any(far in command for far in FAR + LONG):
        words.append("--help")
    done = qwen_eval(*words, cwd=home, stdin="Hello\n" if words[0] == "chat" else "")
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr


@pytest.mark.slow
@pytest.mark.smollm2
def test_torchrun(home: Path, smollm2: Path) -> None:
    (command,) = [c for c in COMMANDS if "torchrun" in c]
    setting, program, *words = shlex.split(command)
    assert program == "torchrun"
    name, _, value = setting.partition("=")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, "--limit", "3"],
        cwd=home, env=environment(**{name: value}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mmlu@strict" in done.stdout
    assert (home / "runs" / "two" / "DONE").exists()


def test_make_targets_exist() -> None:
    targets = {c.split()[1] for c in COMMANDS if c.startswith("make ")}
    assert {"eval", "test"} <= targets
    for target in targets:
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_every_command_is_one_of_these() -> None:
    assert len(COMMANDS) > 12
    known = ("make ", "qwen-eval ", "OMP_NUM_THREADS=1 torchrun ")
    assert all(command.startswith(known) for command in COMMANDS)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
    ],
)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{name}: {target}"


def test_it_names_the_exit_codes_that_exist() -> None:
    from qwen_eval import errors

    for kind in (errors.UserError, errors.RefusedError, errors.InfrastructureError):
        assert re.search(rf"\b{kind.exit_code} \w", TEXT)


def test_it_says_that_the_default_model_is_quantised() -> None:
    assert "Q4_1" in TEXT


def test_the_suites_page_lists_every_task_with_its_recipes() -> None:
    from qwen_eval.taskspec import find_task, task_names

    page = (ROOT / "docs" / "suite.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [\w ]+ \| (.*?) \|", page, re.MULTILINE))
    other_pages = ("tiny_", "human300", "longppl", "passkey", "needle")
    listed = {name: spec for name in task_names() for spec, _ in [find_task(name)]}
    for name, spec in listed.items():
        if not name.startswith(other_pages):
            assert re.findall(r"`([\w-]+)`", rows[name]) == list(spec.recipes), name
