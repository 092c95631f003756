"""`gate promote` and `gate explain` as a user runs them, and what a kill leaves of a baseline."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_eval import promote as promoting
from qwen_eval.errors import RefusedError
from qwen_eval.promote import promote, read_noise, read_promoted
from qwen_eval.results import FILES, RunInfo, read_run
from qwen_eval.run_writer import RunWriter
from tests.cli.command import qwen_eval, refused
from tests.harness.toys import record, run_info, task_info

HOSTILE = "\x1b[31mred\x1b[0m \u202etxt.exe [bold]x[/]\nsecond line"
RULES = """rules:
  - {task: toy, type: non_inferiority, margin: 0.02}
quarantine:
  - {task: toy, item: "0001", until: 2020-01-01, reason: it was unclear}
  - {task: toy, item: "0003", until: 9999-12-31, reason: "two answers\\e[31m"}
"""


def written(folder: Path, values: list[float], **info: Any) -> Path:
    """A finished run of the toy task on disk; the second half of its items has a margin."""
    fields = {"selected": len(values), "available": len(values)}
    asked: RunInfo = run_info(tasks={"toy@strict": task_info(**fields)})
    writer = RunWriter(folder, replace(asked, **info), ["header \x1b]0;owned\x07"])
    writer.begin({"samples": len(values), "seconds": 2.0, "tokens": 10, "peak_memory": 2**20})
    prefix = next(iter(json.loads((folder / "prompts.json").read_text())))
    for i, value in enumerate(values):
        reply = {"text": f"{HOSTILE} {i}", "finish_reason": "length", "output_tokens": 3}
        detail = {"margin": 1e-5} if i >= len(values) // 2 else {}
        writer.add(record(i, value, prefix=prefix, text=f"question {i}\x1b[2J", responses=[reply],
                          answer=f"{value}", detail=detail))  # fmt: skip
    writer.finish([("toy@strict", f"{i:04x}") for i in range(len(values))], {"schema": 1})
    writer.close()
    return folder


def answers(seed: int, shift: float = 0.0, n: int = 200) -> list[float]:
    dice = random.Random(seed)
    return [float(dice.random() < 0.6 + shift) for _ in range(n)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three runs of one model that lie apart as wholes, and a worse candidate."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"a": answers(1), "b": answers(1, 0.1), "c": answers(1, -0.1), "worse": answers(1, -0.2)}
    return {name: written(folder / name, values) for name, values in made.items()}


def promoted(runs: dict[str, Path], to: Path, *more: object, reason: str = "first"):
    aa = ("--aa", runs["b"], "--aa", runs["c"])
    return qwen_eval("gate", "promote", runs["a"], "--to", to, *aa, "--reason", reason, *more)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- promote ------------------------------------------------------------------------------------


def test_a_promoted_baseline_is_a_run_with_its_noise(runs: dict[str, Path], tmp_path: Path) -> None:
    to = tmp_path / "deep" / "main"
    done = promoted(runs, to, "--by", "ada")
    assert done.returncode == 0, done.stderr
    assert "toy@strict: 3 runs over 200 items, scores " in done.stdout
    assert {path.name for path in to.iterdir()} == {*FILES, "DONE", "noise.json", "promoted.json"}
    there = bytes_of(runs["a"])
    assert {name: raw for name, raw in bytes_of(to).items() if name in there} == there
    record = json.loads((to / "promoted.json").read_text())
    assert (record["who"], record["reason"], record["history"]) == ("ada", "first", [])
    assert (record["from"], record["fingerprint"]) == (str(runs["a"]), "f")
    assert record["aa"] == [str(runs["b"]), str(runs["c"])]
    assert record["when"].endswith("+00:00")
    noise = read_noise(to)
    assert noise is not None
    assert noise.tasks["toy@strict"].extra_variance > 0.003
    assert noise.log_sd["peak_memory"] == 0
    (tmp_path / "gate.yaml").write_text(RULES)
    gate = ("gate", "--rules", tmp_path / "gate.yaml", "--candidate", runs["worse"], "--baseline")
    assert qwen_eval(*gate, runs["a"]).returncode == 1
    informed = qwen_eval(*gate, to)
    assert (informed.returncode, informed.stderr) == (0, "")
    assert informed.stdout.startswith("INCONCLUSIVE")
    assert "with the noise of 3 A/A runs" in informed.stdout


def test_a_replaced_baseline_keeps_its_history(runs: dict[str, Path], tmp_path: Path) -> None:
    to = tmp_path / "main"
    for number in range(3):
        done = promoted(runs, to, "--by", "ada", reason=f"reason {number}")
        assert done.returncode == 0, done.stderr
    record = read_promoted(to)
    assert record is not None
    assert [record["reason"], *(one["reason"] for one in record["history"])] == [
        "reason 2", "reason 1", "reason 0"]  # fmt: skip
    assert all("history" not in one for one in record["history"])
    assert [path.name for path in tmp_path.iterdir()] == ["main"], "nothing is left beside it"
    assert read_run(to).finished
    # A baseline can be promoted again where it lies, with fresh A/A runs.
    aa = [read_run(runs[name]) for name in "bc"]
    promote(read_run(to), aa, to, reason="again", who="ada", when="now")
    assert len((read_promoted(to) or {})["history"]) == 3


def test_a_link_stays_a_link(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "main")
    for _ in range(2):
        assert promoted(runs, tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert read_noise(tmp_path / "main")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"model": {"name": "m", "fingerprint": "other", "dtype": "float32"}},
         "model.fingerprint is f in .*, other here"),
        ({"model": {"name": "m", "fingerprint": "f", "dtype": "bfloat16"}},
         "model.dtype is float32 in .*, bfloat16 here"),
        ({"settings": {"seed": 0, "ntk": True}}, "settings.ntk is None in .*, True here"),
        ({"tasks": {"toy@strict": task_info(selected=9)}},
         "toy@strict: not comparable: selected is 200 in .*, 9 here"),
        ({"tasks": {"other@strict": task_info(recipe="other@strict")}}, "has no task toy@strict"),
    ],
)  # fmt: skip
def test_other_models_and_other_items_are_refused(
    runs: dict[str, Path], tmp_path: Path, made: dict[str, Any], says: str
) -> None:
    run, good = read_run(runs["a"]), read_run(runs["b"])
    other = replace(good, folder=tmp_path / "x", info=replace(good.info, **made))
    with pytest.raises(RefusedError, match=f"--aa .*/x: .*{says}"):
        promote(run, [good, other], tmp_path / "to", reason="r", who="w", when="now")
    assert not list(tmp_path.iterdir())


def test_another_name_and_another_seed_are_the_same_model(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    run, good = read_run(runs["a"]), read_run(runs["b"])
    model = good.info.model | {"name": "elsewhere/m"}
    info = replace(good.info, model=model, settings={"seed": 7})
    other = replace(good, folder=tmp_path / "x", info=info)
    promote(run, [good, other], tmp_path / "to", reason="r", who="w", when="now")


def test_mistakes_are_one_line_and_change_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    to, a, b, c = tmp_path / "main", runs["a"], runs["b"], runs["c"]
    start = ("gate", "promote", a, "--to", to, "--reason", "r")
    assert "--aa: name at least 2 further runs" in refused(qwen_eval(*start, "--aa", b))
    for other in (a, b):
        assert "named twice" in refused(qwen_eval(*start, "--aa", b, "--aa", other))
    assert "--reason" in refused(qwen_eval(*start[:-1], " ", "--aa", b, "--aa", c))
    (unfinished := written(tmp_path / "half", answers(1))).joinpath("DONE").unlink()
    line = refused(qwen_eval(*start, "--aa", b, "--aa", unfinished), 3)
    assert "half: the run is not finished" in line
    to.mkdir()
    (to / "notes.txt").write_text("mine")
    assert "no promoted baseline" in refused(promoted(runs, to), 3)
    assert bytes_of(to) == {"notes.txt": b"mine"}
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(promoted(runs, tmp_path / "file" / "main"))


@pytest.mark.parametrize("damage", ["noise", "gone", "record", "orphan", "schema"])
def test_a_changed_noise_file_is_refused(
    runs: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    to = tmp_path / "main"
    repeats = [read_run(runs[name]) for name in "bc"]
    promote(read_run(runs["a"]), repeats, to, reason="r", who="w", when="now")
    noise, record = to / "noise.json", to / "promoted.json"
    if damage == "noise":
        noise.write_text(noise.read_text().replace('"runs": 3', '"runs": 9'))
    elif damage == "gone":
        noise.unlink()
    elif damage == "orphan":
        record.unlink()
    else:
        text = record.read_text()
        at = {
            "record": text[: len(text) // 2],
            "schema": text.replace('"schema": 1', '"schema": 2'),
        }
        record.write_text(at[damage])
    (tmp_path / "gate.yaml").write_text(RULES)
    line = refused(
        qwen_eval("gate", "--rules", tmp_path / "gate.yaml", "--baseline", to,
                  "--candidate", runs["a"])
    )  # fmt: skip
    assert f"{to}/" in line
    assert "noise.json" in line or "promoted.json" in line


def test_a_kill_at_any_moment_leaves_the_old_baseline_or_the_next(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """Every call that changes the disk is the last one once."""
    run, repeats = read_run(runs["a"]), [read_run(runs[name]) for name in "bc"]
    steps, outcomes = 0, set()
    while True:
        folder = tmp_path / str(steps)
        folder.mkdir()
        to = folder / "main"
        promote(run, repeats, to, reason="old", who="w", when="then")
        if not _killed(steps, lambda to=to: promote(run, repeats, to, reason="next", who="w",
                                                    when="now")):  # fmt: skip
            break
        if to.exists():
            assert read_run(to).finished
            assert read_noise(to)
            outcomes.add((read_promoted(to) or {})["reason"])
        else:
            outcomes.add("between")
        promote(run, repeats, to, reason="last", who="w", when="later")
        record = read_promoted(to) or {}
        reasons = [one["reason"] for one in record["history"]]
        assert reasons in (["old"], ["next", "old"])
        assert [path.name for path in folder.iterdir()] == ["main"]
        steps += 1
    assert outcomes == {"old", "between", "next"}
    assert steps > 8


def _killed(step: int, work: Any) -> bool:
    """Do it in another process that kills itself before its change number `step`."""
    child = os.fork()
    if not child:
        left = step

        def counted(function: Any) -> Any:
            def call(*values: Any, **more: Any) -> Any:
                nonlocal left
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return function(*values, **more)

            return call

        changes = [(Path, "mkdir"), (Path, "rename"), (os, "unlink"), (os, "rmdir")]
        changes += [(promoting, "_copy"), (promoting, "write_atomic")]
        for owner, name in changes:
            setattr(owner, name, counted(getattr(owner, name)))
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_what_is_not_ours_does_not_cost_the_old_baseline(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """Killed between the two moves, and then somebody makes a folder of that name."""
    run, repeats = read_run(runs["a"]), [read_run(runs[name]) for name in "bc"]
    to = tmp_path / "main"
    promote(run, repeats, to, reason="old", who="w", when="then")
    to.rename(tmp_path / ".main.replaced")
    to.mkdir()
    with pytest.raises(RefusedError, match="no promoted baseline"):
        promote(run, repeats, to, reason="next", who="w", when="now")
    assert read_noise(tmp_path / ".main.replaced")


# --- explain ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baseline(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("baselines") / "main"
    repeats = [read_run(runs[name]) for name in "bc"]
    promote(read_run(runs["a"]), repeats, to, reason="r", who="w", when="now")
    return to


def explained(item: str, baseline: Path, candidate: Path, *more: object):
    return qwen_eval("gate", "explain", item, "--baseline", baseline, "--candidate", candidate,
                     *more)  # fmt: skip


def test_explain_says_all_about_an_item(
    runs: dict[str, Path], baseline: Path, tmp_path: Path
) -> None:
    (tmp_path / "gate.yaml").write_text(RULES)
    values = {name: [s.values["accuracy"] for s in read_run(path).samples]
              for name, path in runs.items()}  # fmt: skip
    number = next(i for i in range(100, 200) if values["a"][i] > values["worse"][i]
                  and len({values[name][i] for name in "abc"}) == 2)  # fmt: skip
    item = f"{number:04x}"
    asked = ("--rules", tmp_path / "gate.yaml", "--json")
    done = explained(item, baseline, runs["worse"], *asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (task,) = found["tasks"]
    assert (found["schema"], found["item"], task["task"]) == (1, item, "toy@strict")
    assert (task["flipped"], task["in_noise"]) == (True, True)
    assert task["unsteady"] == {"changed": 1, "runs": 3}
    assert task["weight"] == pytest.approx(1 / 199), "one of 200 is in quarantine"
    assert task["prefix"].startswith("header ")
    for side, value in (("baseline", 1.0), ("candidate", 0.0)):
        answer = task["answers"][side]
        assert (answer["values"], answer["margin"]) == ({"accuracy": value}, 1e-5)
        assert answer["responses"][0]["finish_reason"] == "length"
    # Without --json the same goes to stdout, in words.
    told = explained(item, baseline, runs["worse"], *asked[:-1]).stdout
    assert told == done.stderr
    for words in ("its score changed, inside the noise of dtype and machine",
                  "weighs 0.503 points, one of 199 items", "differed in 1 of 3 A/A runs",
                  f"| question {number}", "reply, ended by length", "margin 1e-05",
                  "scored, accuracy 1, answer '1.0'", "| second line"):  # fmt: skip
        assert words in told, told
    assert "header" not in told
    assert "\x1b" not in told
    assert "\u202e" not in told
    full = explained(item, baseline, runs["worse"], "--full").stdout
    assert "| header ␛]0;owned␇" in full


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("0001", "was in quarantine until 2020-01-01: it was unclear"),
        ("0003", "is in quarantine until 9999-12-31: two answers␛[31m"),
    ],
)
def test_explain_knows_the_quarantine(
    runs: dict[str, Path], tmp_path: Path, item: str, words: str
) -> None:
    (tmp_path / "gate.yaml").write_text(RULES)
    done = explained(item, runs["a"], runs["a"], "--rules", tmp_path / "gate.yaml")
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert done.stdout.count("in quarantine") == 1
    assert ("weighs nothing" in done.stdout) == (item == "0003")
    assert "its score is the same in both" in done.stdout
    assert "A/A" not in done.stdout


def test_explain_of_what_only_one_run_has(runs: dict[str, Path], tmp_path: Path) -> None:
    few = written(tmp_path / "few", answers(1)[:20])
    done = explained("00c7", runs["a"], few, "--json")
    assert "does not have it" in done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    assert task["answers"]["candidate"] is None
    assert (task["flipped"], task["in_noise"], task["weight"]) == (None, None, 0.0)
    assert explained("00c7", few, runs["a"]).returncode == 0


def test_a_beginning_is_enough_where_it_is_clear(runs: dict[str, Path], tmp_path: Path) -> None:
    few = written(tmp_path / "few", answers(1)[:20])
    assert "0013" in explained("0013", few, few).stdout
    line = refused(explained("001", few, few))
    assert line == "001: 4 items begin so: 0010, 0011, 0012, 0013"
    line = refused(explained("", few, few))
    assert "20 items begin so: " in line
    assert line.endswith("0004 and 15 more")
    line = refused(explained("0x13", few, few))
    assert line.startswith("0x13: no item begins so; there are 0013")
    assert refused(explained("\x1b[31m", few, few)).startswith("␛[31m: no item begins so")
    assert "nowhere" in refused(explained("0", tmp_path / "nowhere", few))


def test_an_item_of_two_recipes_is_explained_for_both(tmp_path: Path) -> None:
    from qwen_eval.explain import explain
    from tests.harness.test_gate import TODAY

    folder = written(tmp_path / "run", [1.0, 0.0])
    run = read_run(folder)
    twice = [*run.samples, *(replace(s, task="toy@qwen") for s in run.samples)]
    tasks = run.info.tasks | {"toy@qwen": task_info(recipe="toy@qwen", selected=2)}
    run = replace(run, samples=twice, info=replace(run.info, tasks=tasks))
    found = explain("0000", run, run, today=TODAY)
    assert [task["task"] for task in found["tasks"]] == ["toy@strict", "toy@qwen"]
    assert [task["weight"] for task in found["tasks"]] == [0.5, 0.5]
