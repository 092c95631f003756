"""Functions that a task brings along: of its folder only, and looked at before they are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.catalogue import OURS
from qwen_eval.cli.setup import find_functions, load_tasks
from qwen_eval.errors import UserError
from qwen_eval.runner import Finished, Runner
from qwen_eval.tasks.own import own_file
from qwen_eval.tasks.solvers import find_solver
from qwen_eval.taskspec import load_spec
from qwen_eval.types import JudgeRequest, Response

GRADE = """\
from __future__ import annotations
from dataclasses import dataclass
from qwen_eval.types import GenerateRequest, Score

@dataclass
class Reading:
    text: str

def exact(reply, target, metric):
    return Score({metric: float(target in Reading(reply).text)}, answer=reply)

def by_item(reply, item):
    return Score({item.metric: float(str(item.sample.row["answer"]) in reply)}, answer=reply)

def twice(item):
    first = yield GenerateRequest(item.prompt, item.decoding, reference="half of it")
    again = yield GenerateRequest(item.prompt, item.decoding, reference=item.reference)
    return Score({item.metric: float(first.text + again.text == "half of it" + item.reference)})

def none(item):
    return None

def two(text, other, third, fourth):
    return None

def named(*, reply, target, metric):
    return None
"""


def task(folder: Path, *, code: str = GRADE, kind: str = "generate", **keys: str) -> Path:
    """A template's task with lines of it replaced, and grade.py beside it."""
    source = OURS / "templates" / kind
    (folder / "mine").mkdir(parents=True)
    lines = (source / "task.yaml").read_text().replace("NAME", "mine").splitlines()
    for key, value in keys.items():
        (place,) = [i for i, line in enumerate(lines) if line.strip().startswith(f"{key}: ")]
        lines[place] = lines[place].partition(key)[0] + f"{key}: {value}"
    (folder / "mine" / "task.yaml").write_text("\n".join(lines) + "\n")
    (folder / "mine" / "data.jsonl").write_bytes((source / "data.jsonl").read_bytes())
    (folder / "mine" / "grade.py").write_text(code)
    return folder


def ask(folder: Path, model: str = "oracle") -> list[Finished]:
    (loaded,) = load_tasks("mine", None, None, paths=[folder])
    solve = find_solver(loaded.solver, loaded.spec.folder)
    return list(Runner(open_backend("mock", model, BackendOptions()), solve).run(loaded.items))


def test_a_name_is_a_file_of_the_folder_and_a_function() -> None:
    assert own_file("grade.py:exact") == "grade.py"
    for name in ("number", "grade.py", "grade.py:", "../grade.py:f", "/a.py:f", "a.b.py:f", "os:f"):
        assert own_file(name) is None


@pytest.mark.parametrize("scorer", ["exact", "by_item"])
def test_a_scorer_of_ones_own_reads_replies(tmp_path: Path, scorer: str) -> None:
    folder = task(tmp_path, scorer=f"grade.py:{scorer}")
    assert [one.score.values["accuracy"] for one in ask(folder)] == [1.0, 1.0, 1.0]
    assert {one.score.values["accuracy"] for one in ask(folder, "random")} == {0.0}
    assert not list((folder / "mine").glob("__pycache__"))


def test_a_solver_of_ones_own_asks_as_often_as_it_likes(tmp_path: Path) -> None:
    done = ask(task(tmp_path, solver="grade.py:twice"))
    assert [(one.error, one.score.values["accuracy"]) for one in done] == [(None, 1.0)] * 3
    assert [len(one.responses) for one in done] == [2, 2, 2]


def test_a_cut_and_a_measure_of_ones_own(tmp_path: Path) -> None:
    code = (
        "def cut(head, reply, name):\n    return reply.split('#')[0]\n"
        "def measure(options, tokens):\n    return [1000, 1, 1000, 1000]\n"
    )
    folder = task(tmp_path / "a", code=code, kind="code", scorer="grade.py:cut")
    (loaded,) = load_tasks("mine", None, None, paths=[folder])
    asking = find_solver("code", tmp_path)(loaded.items[0])
    next(asking)
    judged = asking.send(Response(text="    return 1  # one"))
    assert isinstance(judged, JudgeRequest)
    assert judged.candidate == loaded.items[0].sample.row["prompt"] + "    return 1  "
    # Log-probabilities divided by a thousand are nearest to zero: those options beat the second.
    folder = task(tmp_path / "b", code=code, kind="choice", scorer="grade.py:measure")
    right = {one.item.gold: one.score.values["accuracy"] for one in ask(folder)}
    assert right == {0: 1.0, 1: 0.0, 2: 1.0}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"scorer": "gone.py:f"}, r"task.yaml: .*gone\.py: cannot be read \(No such file"),
        ({"scorer": "grade.py:gone"}, r"grade\.py: no function gone"),
        ({"scorer": "grade.py:Reading"}, r"grade\.py: no function Reading"),
        (
            {"scorer": "grade.py:two"},
            r"two must take \(reply, item\) or \(reply, target, metric\), not \(text, other, th",
        ),
        ({"scorer": "grade.py:named"}, r"named must take .* not \(\*, reply, target, metric\)"),
        ({"scorer": "../grade.py:f"}, r"unknown; known: number, .*FILE\.py:FUNCTION"),
        ({"scorer": "nubmer"}, r"task\.yaml: scorer nubmer: unknown; known: number"),
        ({"solver": "grade.py:none"}, r"grade\.py:none: is no generator"),
        ({"solver": "grade.py:exact"}, r"exact must take \(item\), not \(reply, target, metric\)"),
        ({"solver": "grade:twice"}, r"task\.yaml, line \d+: solver: choose one of choice"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, keys: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_tasks("mine", None, None, paths=[task(tmp_path, **keys)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:\n", r"grade\.py: SyntaxError: .*line 1"),
        ("import nothing_of_this_name\n", r"grade\.py: ModuleNotFoundError: No module"),
    ],
)
def test_a_file_that_cannot_be_run_is_named(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_tasks("mine", None, None, paths=[task(tmp_path, code=code, scorer="grade.py:exact")])


def test_a_listing_runs_no_code(tmp_path: Path) -> None:
    code = f"{GRADE}\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n"
    spec = load_spec(task(tmp_path, code=code, scorer="grade.py:exact") / "mine" / "task.yaml")
    assert not (tmp_path / "ran").exists()
    find_functions(spec)
    assert (tmp_path / "ran").exists()


def test_the_digest_follows_the_code(tmp_path: Path) -> None:
    folder = task(tmp_path, scorer="grade.py:exact")
    file = folder / "mine" / "grade.py"
    before = load_spec(folder / "mine" / "task.yaml").digest
    file.write_text(GRADE + "# more\n")
    assert load_spec(folder / "mine" / "task.yaml").digest != before
    file.write_text(GRADE)
    assert load_spec(folder / "mine" / "task.yaml").digest == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 / 0", "solver: ZeroDivisionError: division by zero"),
        ("return True", "the scorer gave a bool, not a Score"),
        ("return None", "the scorer gave a NoneType, not a Score"),
        ("return Score({metric: 'all'})", "the scorer gave what cannot be kept: bad operand type"),
        ("return Score({metric: float('nan')})", "a value that is not a finite number"),
        ("return Score({'acc': 1.0})", "the scorer gave no accuracy"),
        (
            "return Score({metric: 1.0}, status='fine')",
            "gave 'fine', which is no status",
        ),
        ("return Score({metric: 1.0}, answer=5)", "the scorer gave what cannot be kept"),
        ("return Score({metric: 1.0}, detail={'x': {1}})", "Object of type set is not JSON"),
        ("return Score({metric: 1.0}, detail={'margin': 'x'})", "what cannot be kept: bad operand"),
    ],
)
def test_a_scorer_that_fails_is_the_samples_error(tmp_path: Path, line: str, said: str) -> None:
    code = (
        "from qwen_eval.types import Score\n"
        "def f(reply, target, metric):\n"
        f"    if target == '84':\n        {line}\n"
        "    return Score({metric: 1.0})\n"
    )
    errors = [one.error for one in ask(task(tmp_path, code=code, scorer="grade.py:f"))]
    assert errors.count(None) == 2
    (error,) = filter(None, errors)
    assert said in error


def test_a_solver_that_asks_nonsense_is_the_samples_error(tmp_path: Path) -> None:
    code = "def f(item):\n    yield 'what?'\n"
    done = ask(task(tmp_path, code=code, solver="grade.py:f"))
    said = "solver: it yields a str, which is no request"
    assert [one.error for one in done] == [said] * 3
