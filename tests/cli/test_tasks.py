"""`qwen-eval tasks`: a task is begun, checked, shown and run; what is wrong with it is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from qwen_eval.catalogue import OURS
from qwen_eval.cli import task_check, task_show, tasks
from qwen_eval.datasets import open_data
from qwen_eval.errors import UserError
from qwen_eval.prompts import Renderer
from qwen_eval.taskspec import find_task, task_names
from qwen_eval.types import JudgeRequest, Response
from tests.cli.command import qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint


@pytest.fixture(autouse=True)
def _nothing_but_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what runs in this process, as tests.cli.command has it for others."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("QWEN_EVAL_DATA", raising=False)


DOCUMENT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def begun(folder: Path, solver: str = "choice") -> Path:
    tasks.new("quiz", folder, solver)
    return folder / "quiz"


def check(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """All that `tasks check` says of a task with a fault."""
    with pytest.raises(UserError) as error:
        task_check.command(path)
    assert "\n" not in str(error.value)
    return capsys.readouterr().out + str(error.value)


def run(folder: Path, out: Path, *words: str) -> dict[str, Any]:
    done = qwen_eval(
        "run", "--task-path", folder, "--tasks", "quiz", "--out", out, "--json", *words
    )
    assert done.returncode == 0, done.stderr
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["tasks"]["quiz@strict"]
    return row


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("solver", tasks.KINDS)
def test_a_task_is_begun_checked_and_run(tmp_path: Path, solver: str) -> None:
    quiz = begun(tmp_path, solver)
    assert {path.name for path in quiz.iterdir()} == {"task.yaml", "data.jsonl"}
    checked = qwen_eval("tasks", "check", quiz / "task.yaml", "--accept-no-sandbox")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "quiz@strict: 3 of 3 rows rendered, mock:oracle 100.0 %" in checked.stdout
    assert checked.stdout.endswith("no faults\n")
    row = run(tmp_path, tmp_path / "run", "--model", "mock:oracle", "--accept-no-sandbox")
    assert (row["overall"]["n"], row["overall"]["estimate"], row["data"]) == (3, 1.0, "own")


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    begun(tmp_path)
    for name, solver, said in [
        ("quiz", "choice", f"{tmp_path / 'quiz'}: is there already; nothing was written"),
        ("mmlu", "choice", "tasks new mmlu: there is a task or suite of this name already"),
        ("tiny", "choice", "tasks new tiny: there is a task or suite of this name already"),
        ("a,b", "choice", "tasks new a,b: a name is letters, digits and _, such as capitals"),
        ("other", "guess", "--solver guess: choose one of choice, generate, code"),
    ]:
        with pytest.raises(UserError) as error:
            tasks.new(name, tmp_path, solver)
        assert str(error.value) == said
    assert [path.name for path in tmp_path.iterdir()] == ["quiz"]


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("task.yaml", "solver: choice", "solver: choose", r"task\.yaml, line 7: solver: choose on"),
        ("task.yaml", "metric: accuracy", "metric: [", r"task\.yaml, line \d+: not YAML"),
        ("task.yaml", "{{ question }}\\nA", "{{ query }}\\nA", r"row 1: 'query' is undefined"),
        ("task.yaml", "options: [A, B, C, D]", "options: [A, B]", "row 2: gold 2 is no option"),
        ("task.yaml", '"{{ answer }}"', '"{{ answer + 2 }}"', "row 2: gold 4 is no option"),
        ("task.yaml", '"{{ answer }}"', '"{{ answer + title }}"', "'title' is undefined"),
        ("task.yaml", '"{{ answer }}"', '"{{ answer + question }}"', "row 1: TypeError"),
        ("task.yaml", "scorer: argmax", "scorer: best", "scorer best: unknown for options"),
        ("task.yaml", "name: quiz ", "name: quizz ", "name: quizz is not what its folder is ca"),
        ("data.jsonl", '"answer": 2}', '"answer": 4}', "row 2: gold 4 is no option"),
        ("data.jsonl", '"answer": 2}', '"answer": 2', "data.jsonl, line 2: not JSON"),
    ],
)
def test_faults_are_found(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    old: str,
    new: str,
    said: str,
) -> None:
    quiz = begun(tmp_path)
    change(quiz / file, old, new)
    assert re.search(said, check(quiz, capsys))


def quiz_of(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Path:
    """A task of short rows that asks `{{ text }}` for an option."""
    recipe = {"version": 1, "source": "here", "item": "{{ text }}", "scorer": "argmax"}
    raw = {"name": "quiz", "version": 1, "title": "t", "licence": "x", "metric": "accuracy"}
    raw |= {"solver": "choice", "gold": "{{ gold }}", "target": "{{ gold }}"}
    raw |= {"splits": {"test": {"own": "data.jsonl"}, "dev": {"own": "dev.jsonl"}}}
    recipe |= {"options": ["a", "b"]} | keys
    (folder / "quiz").mkdir()
    path = folder / "quiz" / "task.yaml"
    path.write_text(yaml.safe_dump(raw | {"recipes": {"strict": recipe}}))
    for name, held in (("data", rows), ("dev", [])):
        lines = "".join(json.dumps(row) + "\n" for row in held)
        (folder / "quiz" / f"{name}.jsonl").write_text(lines)
    return path


ROWS = [{"text": f"Which? {n}", "gold": n % 2} for n in range(6)]


@pytest.mark.parametrize(
    ("rows", "keys", "said"),
    [
        ([*ROWS, ROWS[1]], {}, "fault: test row 7: is row 2 once more\n"),
        ([], {}, "quiz/data.jsonl: the test split is empty"),
        (ROWS, {"shots": {"count": 2, "split": "dev"}}, "quiz/dev.jsonl: the dev split is empty"),
        (ROWS, {"shots": {"count": 7, "split": "test"}}, "holds 6 exemplars, 7 are needed"),
        (ROWS, {"shots": {"count": 2, "split": "test"}}, "row 2: is among its own exemplars"),
        (ROWS, {"item": "Which?"}, "fault: quiz@strict: all 6 rows make the same prompt"),
    ],
)
def test_what_is_wrong_with_rows(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, Any]],
    keys: dict[str, Any],
    said: str,
) -> None:
    assert said in check(quiz_of(tmp_path, rows, **keys), capsys)


def test_a_gold_that_a_guesser_finds_is_not_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers are those that mock:random gives, learnt from a run of it."""
    rows = [{"text": f"Which? {n}", "gold": 0} for n in range(40)]
    path = quiz_of(tmp_path, rows)
    run(tmp_path, tmp_path / "run", "--model", "mock:random")
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    guessed = {r["text"]: "ab".index(r["answer"]) for r in records if "answer" in r}
    learnt = [row | {"gold": guessed[str(row["text"])]} for row in rows]
    text = "".join(json.dumps(row) + "\n" for row in learnt)
    (path.parent / "data.jsonl").write_text(text)
    said = check(path, capsys)
    assert "mock:random 100.0 % (chance 50.0 %)" in said
    assert "fault: quiz@strict: mock:random is not near chance" in said


def test_a_scorer_that_does_not_read_the_reference_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiz = begun(tmp_path, "generate")
    change(quiz / "task.yaml", 'reference: "The answer is {{ answer }}."', "reference: Who knows?")
    said = "row 3: the reference 'Who knows?' has no answer in it, the target is '45'"
    assert said in check(quiz, capsys)
    change(quiz / "task.yaml", "reference: Who knows?", "")
    assert "row 1: reference: empty" in check(quiz, capsys)


def test_the_published_cut_of_humaneval_shortens_37_solutions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The released Qwen script cuts 37 of the 164 reference solutions at a blank line or a `def`:
    these, and nothing else, are faults of that recipe."""
    data = open_data(find_task("humaneval")[0], None)
    rows = data.samples()
    solutions = {s.row["prompt"] + s.row["canonical_solution"].rstrip() for s in rows}
    cut = [
        number
        for number, sample in enumerate(rows, 1)
        if re.search(r"\n\n|def ", sample.row["canonical_solution"].rstrip())
    ]

    class Passes:
        """Takes whole solutions only."""

        def judge(self, request: JudgeRequest) -> Response:
            return Response(passed=request.candidate.rstrip() in solutions, finish_reason="judged")

        def interpreter(self, packages: object, files: object) -> NoReturn:
            raise AssertionError("no cells here")

    found = list(task_check.recipe_faults(data, "qwen", Passes()))  # type: ignore[arg-type]
    told = [int(fault.partition("row ")[2].partition(":")[0]) for fault in found]
    assert len(told) == 37
    assert told == cut
    assert "mock:oracle 77.4 %" in capsys.readouterr().out


# --- a scorer of one's own, in a run ---------------------------------------------------------


def test_a_changed_scorer_is_another_run_and_rescore_reads_with_it(tmp_path: Path) -> None:
    quiz = begun(tmp_path, "generate")
    change(quiz / "task.yaml", "scorer: number ", "scorer: grade.py:grade ")
    grade = quiz / "grade.py"
    grade.write_text(
        "from qwen_eval.types import Score\n\n\n"
        "def grade(reply, target, metric):\n"
        "    return Score({metric: float(target in reply)}, answer=reply)\n"
    )
    out = tmp_path / "run"
    assert run(tmp_path, out, "--model", "mock:oracle")["overall"]["estimate"] == 1.0
    change(grade, "target in reply", "target not in reply")
    again = ("run", "--task-path", tmp_path, "--tasks", "quiz", "--model", "mock:oracle")
    assert "spec_digest" in refused(qwen_eval(*again, "--out", out), 2)
    scored = qwen_eval("rescore", out, "--task-path", tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert re.search(r"grade\.py:grade +0\.0 %, 0 without an answer", scored.stdout)
    named = qwen_eval("rescore", out, QWEN_EVAL_TASK_PATH=f"{tmp_path}:{tmp_path}")
    assert named.stdout == scored.stdout


# --- show --------------------------------------------------------------------------------------


def show(capsys: pytest.CaptureFixture[str], name: str, **options: Any) -> str:
    task_show.command(name, **options)
    return capsys.readouterr().out


def shown(capsys: pytest.CaptureFixture[str], name: str, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(show(capsys, name, as_json=True, **options))
    return found


def test_show_has_the_prompt_byte_for_byte(
    mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, recipe = find_task("mmlu")
    data = open_data(spec, mirror)
    sample = data.samples()[1234]
    item = Renderer(data, recipe).render(sample)
    found = shown(capsys, "mmlu", row=1235, data=mirror)
    assert (found["id"], found["data"]) == (sample.id, "mirror")
    parts = {part["part"]: part["text"] for part in found["prompt"]}
    prefix, asked = item.prompt.prefix, item.prompt.text
    assert parts == {"shared prefix": prefix, "text": asked}
    assert (tuple(found["options"]), found["gold"]) == (item.options, item.gold)
    text = show(capsys, "mmlu", sample_id=sample.id, data=mirror)
    assert f"--- shared prefix: {len(prefix):,} characters\n{prefix}\n--- text: " in text
    assert f"characters\n{asked}\n---\noption 0: ' A'" in text


@pytest.mark.slow
def test_show_is_lm_evals_prompt(mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against that harness's own task file, as its templates render it."""
    import lm_eval
    from lm_eval.utils import apply_template

    folder = Path(lm_eval.__path__[0]) / "tasks" / "mmlu" / "default"
    template = yaml.safe_load((folder / "_default_template_yaml").read_text())
    own = yaml.safe_load((folder / "mmlu_anatomy.yaml").read_text())
    rows = open_data(find_task("mmlu")[0], mirror).rows("test")
    number = next(i for i, row in enumerate(rows, 1) if row["subject"] == "anatomy")
    found = shown(capsys, "mmlu@lm-eval", row=number, data=mirror)
    text = "".join(part["text"] for part in found["prompt"])
    assert text == own["description"] + apply_template(template["doc_to_text"], rows[number - 1])


def test_show_has_the_tokens_at_the_seam(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A toy model's tokens are bytes, so they can be written down."""
    quiz_of(tmp_path, [{"text": "Is it? ", "gold": 1}])
    given = {"task_path": [tmp_path], "model": str(toy_checkpoint(tmp_path / "model"))}
    first, second = shown(capsys, "quiz", **given)["tokens"]["seams"]
    # The prompt's last space moves to the option, which has one of its own.
    assert [text for _, text in first["before"]] == [" ", "i", "t", "?"]
    assert [text for _, text in first["after"]] == [" ", " ", "a"]
    assert [text for _, text in second["after"]] == [" ", " ", "b"]
    assert first["natural"]
    assert re.search(r"seam: … .* '\?' \| \d+ ' ' \d+ ' ' \d+ 'a' …", show(capsys, "quiz", **given))


def test_show_names_what_joins_over_the_seam(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled vocabulary reads `swer` otherwise than `swe` and then an r."""
    from qwen_eval.model import bundled
    from qwen_eval.model.tokenizer import load_tokenizer

    quiz_of(tmp_path, [{"text": "The answe", "gold": 1}], gap="", options=["r", "?"])
    encode = load_tokenizer(bundled.folder("tiny")).encode
    asked = encode("The answe")
    expected = [encode("The answe" + option)[: len(asked)] == asked for option in ("r", "?")]
    assert expected == [False, True]
    given = {"task_path": [tmp_path], "model": "tiny"}
    seams = shown(capsys, "quiz", **given)["tokens"]["seams"]
    assert [seam["natural"] for seam in seams] == expected
    assert show(capsys, "quiz", **given).count("NOT how the two are read") == 1


def test_show_has_a_conversation_under_chatml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(capsys, "human300_en", row=3, model=str(toy_checkpoint(tmp_path / "model")))
    system, user = found["prompt"]
    assert (system["part"], user["part"]) == ("system", "user")
    assert found["tokens"]["chatml"] == (
        f"<|im_start|>system\n{system['text']}<|im_end|>\n"
        f"<|im_start|>user\n{user['text']}<|im_end|>\n<|im_start|>assistant\n"
    )
    plain = show(capsys, "human300_en", row=3)
    assert f"--- system: 28 characters\n{system['text']}\n--- user:" in plain


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"name": "mmul"}, "--tasks mmul: unknown task; did you mean mmlu?"),
        ({"name": "mmlu", "row": 9999}, "--row 9999: there are 171 rows"),
        ({"name": "mmlu", "sample_id": "x"}, "--id x: no such sample among 171"),
        ({"name": "mmlu", "sample_id": "x", "row": 1}, "--id, --row: give one of them"),
        ({"name": "mmlu", "model": "mock:oracle"}, "mock:oracle: its tokens cannot be shown"),
    ],
)
def test_show_says_what_it_cannot(words: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        task_show.command(**words)


def test_a_listing_has_ones_own(tmp_path: Path) -> None:
    begun(tmp_path)
    listed = json.loads(qwen_eval("tasks", "--task-path", tmp_path, "--json").stdout)
    names = [task["name"] for task in listed["tasks"]]
    assert set(names) == {*task_names(), "quiz"}
    line = refused(qwen_eval("tasks", "--task-path", tmp_path, "show", "quiz"))
    assert line == "--task-path: name it behind show"


# --- docs/tasks.md ---------------------------------------------------------------------------


def test_the_documents_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = re.findall(r"`(my_tasks/[\w./]+)`[^\n]*:\n\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(files) == 4
    for name, text in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    task_check.command(tmp_path / "my_tasks" / "rivers")
    assert capsys.readouterr().out.endswith("no faults\n")
    text = show(capsys, "rivers", task_path=[tmp_path / "my_tasks"])
    assert "City: Passau\nRivers: Danube, Inn, Ilz\n\n\n--- text" in text
    script = tmp_path / "script.jsonl"
    script.write_text('{"contains": "Lyon", "text": "the Rhône"}\n{"text": " "}\n')
    words = ("run", "--task-path", "my_tasks", "--tasks", "rivers", "--model", f"mock:{script}")
    done = qwen_eval(*words, "--json", cwd=tmp_path)
    row = json.loads(done.stdout.splitlines()[-1])["tasks"]["rivers@strict"]
    assert row["overall"]["estimate"] == pytest.approx(0.5 / 3)
    assert row["counts"]["no_answer"] == 2


@pytest.mark.slow
def test_the_documents_commands_run(tmp_path: Path) -> None:
    toy_checkpoint(tmp_path / "my-checkpoint", max_length=2048, trained_length=2048)
    (block, *_) = re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    commands = [line.partition("  #")[0].split() for line in block.splitlines()]
    for program, *words in commands:
        assert program == "qwen-eval"
        more = ("--plan",) if words[0] == "run" else ()
        done = qwen_eval(*words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_templates_are_no_tasks() -> None:
    assert {path.name for path in (OURS / "templates").iterdir()} == set(tasks.KINDS)
    with pytest.raises(UserError):
        find_task("templates")
