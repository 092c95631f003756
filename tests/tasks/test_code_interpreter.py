"""The code interpreter: how a conversation goes, what counts, and that gold labels are right."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import replace

import pytest

from qwen_eval.runner import Finished, Runner, replay
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.tasks.interpreter import module_cell
from qwen_eval.tasks.scorers import find_reading
from qwen_eval.tasks.scorers.transcripts import Transcript, holds
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.tasks.solvers.code_interpreter import PACKAGES, read_action
from qwen_eval.taskspec import find_task
from qwen_eval.types import GenerateRequest, Item, Prompt
from tests.tasks.agents import Scripted, cells_of, converse, items_of, with_row

TASKS = ("code_interpreter_math", "code_interpreter_vis", "code_interpreter_general")
"""As the rows of the paper's Tables 7 and 8 name them."""


@pytest.fixture(scope="module")
def sum_of_powers() -> Item:
    """A problem whose answer is 30."""
    return with_row(items_of("code_interpreter_math")["m15"], question="1 + 4 + 9 + 16?")


def act(code: str) -> str:
    return f" I run it.\nAction: code_interpreter\nAction Input:\n```py\n{code}\n```\n"


def answer(text: str) -> str:
    return f" I now know the final answer\nFinal Answer: {text}"


def test_the_number_must_stand_in_the_output_and_in_the_answer(
    sandbox: Sandbox, sum_of_powers: Item
) -> None:
    for printed, said, right in (
        (30, "It is 30.", 1.0),
        (30, "It is 31.", 0.0),
        (31, "It is 30.", 0.0),
        (30, "", 0.0),
    ):
        finished, _ = converse(sum_of_powers, sandbox, act(f"print({printed})"), answer(said))
        assert finished.score.values == {"executable": 1.0, "correct": right}
        assert finished.score.status == "scored"
    assert finished.score.detail == {
        "cells": 1, "failed": 0, "figures": 0, "ended": "final answer",
    }  # fmt: skip


def test_one_turn_goes_on_behind_each_observation(sandbox: Sandbox, sum_of_powers: Item) -> None:
    replies = act("x = 29"), act("print('so')\nx + 1"), answer("30")
    finished, model = converse(sum_of_powers, sandbox, *replies)
    assert finished.score.values == {"executable": 1.0, "correct": 1.0}, "the state was kept"
    asked = [request for request in model.asked if isinstance(request, GenerateRequest)]
    assert [len(request.prompt.turns) for request in asked] == [2, 2, 2], "system and user"
    first = act("x = 29").rstrip() + "\nObservation: [no output]\nThought:"
    second = act("print('so')\nx + 1").rstrip() + "\nObservation: so\n30\nThought:"
    assert [request.prompt.begun for request in asked] == ["", first, first + second]
    assert {request.decoding.stop for request in asked} == {("Observation:",)}


def test_an_error_may_be_repaired_but_was_the_first_code(
    sandbox: Sandbox, sum_of_powers: Item
) -> None:
    replies = act("print(thirty)"), act("print(30)"), answer("30")
    finished, model = converse(sum_of_powers, sandbox, *replies)
    assert finished.score.values == {"executable": 0.0, "correct": 1.0}
    assert finished.score.detail["failed"] == 1
    seen = model.asked[1]
    assert isinstance(seen, GenerateRequest)
    assert "NameError: name 'thirty' is not defined\nThought:" in seen.prompt.begun


def test_the_released_loop_hears_nothing_after_an_error_nor_after_the_last_cell(
    sandbox: Sandbox,
) -> None:
    item = items_of("code_interpreter_math@qwen")["m15"]
    finished, model = converse(item, sandbox, act("print(thirty)"), act("print(30)"))
    assert finished.score.values == {"executable": 0.0, "correct": 0.0}
    assert (len(model.asked), finished.score.detail["ended"]) == (1, "last cell")
    finished, model = converse(item, sandbox, act("print('it is 30 now')"))
    assert (len(model.asked), len(cells_of(finished))) == (3, 3)
    # Its reading takes the last number of the whole turn, and an observation is part of that.
    assert finished.score.values == {"executable": 1.0, "correct": 1.0}


def test_a_cell_that_never_ends_is_stopped(
    sandbox: Sandbox, sum_of_powers: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[SOLVERS["code_interpreter"].__module__]
    monkeypatch.setattr(module, "CELL_SECONDS", 0.3)
    finished, _ = converse(
        sum_of_powers, sandbox, act("x = 30\nwhile True: pass"), act("print(x)"), answer("30")
    )
    assert finished.score.values == {"executable": 0.0, "correct": 1.0}
    assert [cell.fault for cell in cells_of(finished)] == ["stopped after 0.3 s", ""]


def test_a_model_that_never_stops_is_wrong(sandbox: Sandbox, sum_of_powers: Item) -> None:
    finished, model = converse(sum_of_powers, sandbox, act("print(30)"))
    assert finished.score.values == {"executable": 1.0, "correct": 0.0}
    assert finished.score.detail == {
        "cells": 5, "failed": 0, "figures": 0, "ended": "more than 5 cells",
    }  # fmt: skip
    assert len(model.asked) == 6
    assert finished.error is None
    item = items_of("code_interpreter_general")["g14"]
    finished, _ = converse(item, sandbox, act(item.reference))
    assert finished.responses[-1].passed, "the table is there, and yet"
    assert finished.score.values == {"executable": 1.0, "correct": 0.0}


@pytest.mark.parametrize("reply", ["", "30", "The answer is 30.", "Action: code_interpreter\n"])
def test_without_code_and_answer_there_is_nothing_to_read(
    sandbox: Sandbox, sum_of_powers: Item, reply: str
) -> None:
    finished, _ = converse(sum_of_powers, sandbox, reply)
    assert finished.score.values == {"executable": 0.0, "correct": 0.0}
    assert finished.score.status == "no_answer"
    assert finished.score.detail["ended"] == "neither code nor final answer"


def test_an_answer_without_code_is_wrong_and_no_empty_reply(
    sandbox: Sandbox, sum_of_powers: Item
) -> None:
    finished, _ = converse(sum_of_powers, sandbox, answer("30"))
    assert finished.score.values == {"executable": 0.0, "correct": 0.0}
    assert (finished.score.status, finished.score.answer) == ("scored", "30")


def test_a_flood_of_output_is_cut(sandbox: Sandbox, sum_of_powers: Item) -> None:
    code = "print('a' * 3_000_000)\nprint(30)"
    finished, model = converse(sum_of_powers, sandbox, act(code), answer("30"))
    assert finished.score.values["executable"] == 1.0
    assert len(cells_of(finished)[0].text) < 17_000
    seen = model.asked[1]
    assert isinstance(seen, GenerateRequest)
    assert len(seen.prompt.begun) < 3_000


def test_a_cell_that_kills_its_session_costs_the_state_and_no_run(
    sandbox: Sandbox, sum_of_powers: Item
) -> None:
    replies = act("x = 30\nimport os; os._exit(0)"), act("print(x)"), act("print(30)"), answer("30")
    finished, _ = converse(sum_of_powers, sandbox, *replies)
    assert finished.score.values == {"executable": 0.0, "correct": 1.0}
    assert [bool(cell.passed) for cell in cells_of(finished)] == [False, False, True]


def test_a_text_prompt_goes_on_as_text(sandbox: Sandbox, sum_of_powers: Item) -> None:
    plain = replace(sum_of_powers, prompt=Prompt("Question: 30?\nThought:", "Tools. "))
    finished, model = converse(plain, sandbox, act("print(30)"), answer("30"))
    assert finished.score.values["correct"] == 1.0
    seen = model.asked[1]
    assert isinstance(seen, GenerateRequest)
    assert seen.prompt.full_text.startswith("Tools. Question: 30?\nThought: I run it.\nAction:")
    assert seen.prompt.full_text.endswith("\nObservation: 30\nThought:")


def test_figures_are_seen_whatever_becomes_of_them(sandbox: Sandbox) -> None:
    item = items_of("code_interpreter_vis")["v01"]
    drawn = item.reference.replace("plt.show()", "")
    saved = act(drawn + "plt.savefig('a.png')\nplt.close()")
    finished, _ = converse(item, sandbox, saved, answer("done"))
    right = {"executable": 1.0, "correct": 1.0, "correct_easy": 1.0}
    assert finished.score.values == right, finished
    assert finished.score.detail["figures"] == 0
    wrong = act(drawn.replace("2310", "2311") + "plt.show()")
    finished, model = converse(item, sandbox, wrong, answer("done"))
    assert finished.score.values == {"executable": 1.0, "correct": 0.0, "correct_easy": 0.0}
    assert finished.score.detail["check"] == "AssertionError: the bars"
    assert (finished.score.detail["figures"], len(cells_of(finished)[0].figures[0])) == (1, 16)
    seen = model.asked[1]
    assert isinstance(seen, GenerateRequest)
    assert seen.prompt.begun.endswith("Observation: [1 figures]\nThought:")


def test_checks_hold_while_a_model_does_not_tamper_with_them(sandbox: Sandbox) -> None:
    item = items_of("code_interpreter_general")["g14"]
    # Names of the model's own, and ways out, do not reach them.
    for code in ("open = print", "assert True", "import sys; sys.exit(0)", "_rows = 1"):
        finished, _ = converse(item, sandbox, act(code), answer("done"))
        assert finished.score.values["correct"] == 0.0, code
    # As documented: they run in its session, which whoever owns it can turn against them.
    forged = "import builtins\nbuiltins.open = lambda *_: 1 / 0\nimport ast\nast.parse = None"
    finished, _ = converse(item, sandbox, act(forged), answer("done"))
    assert finished.score.values["correct"] == 0.0
    assert finished.error is None


def test_a_session_sees_its_files_and_nothing_of_the_checks(sandbox: Sandbox) -> None:
    item = items_of("code_interpreter_general")["g03"]
    code = "import os\nprint(os.getcwd(), sorted(os.listdir('.')), os.path.exists('/work'))"
    finished, _ = converse(item, sandbox, act(code), answer("done"))
    assert cells_of(finished)[0].text == "/tmp/work ['people.csv'] False\n"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (act("print(1)"), "print(1)\n"),
        ("Action: x\nAction Input: ```python\nprint(1)\n```", "print(1)\n"),
        ("Thought: a\nAction: x\nAction Input:```\nprint(1)", "print(1)"),
        ("Action: x\nAction Input: print(1)", " print(1)"),
        ('Action: x\nAction Input: {"code": "print(1)"}', "print(1)"),
        ("Action: x\nAction Input: {1, 2}", " {1, 2}"),
        (act("print(1)") + act("print(2)"), "print(2)\n"),
        ("Action: x\nAction Input:", None),
        ("Action Input: print(1)", None),
        ("An Action: x\nAction Input: y", None),
        ("```py\nprint(1)\n```", None),
    ],
)
def test_what_a_reply_wants_run(reply: str, code: str | None) -> None:
    assert read_action(reply)[1] == code


def test_what_stands_behind_the_code_is_not_heard(sandbox: Sandbox, sum_of_powers: Item) -> None:
    made_up = act("print(29)") + "Final Answer: 30"
    assert read_action(made_up)[0] == act("print(29)").rstrip()
    finished, model = converse(sum_of_powers, sandbox, made_up, answer("29"))
    assert (finished.score.answer, len(model.asked)) == ("29", 2)


@pytest.mark.parametrize(
    ("text", "gold", "found"),
    [
        ("so it is 1,591.85 in all", "1591.85", True),
        ("1591.84", "1591.85", False),
        ("from -5 to 5", "-5", True),
        ("0.24871", "0.2487", True),
        ("2.5899999999", "2.59", True),
        ("3000", "30", False),
        ("7625/10302", "7625/10302", True),
        ("on a WEDNESDAY,\n 29 February", "wednesday, 29", True),
        ("Thursday", "Wednesday", False),
        ("", "0", False),
    ],
)
def test_a_gold_answer_is_found_by_its_value_or_its_words(
    text: str, gold: str, found: bool
) -> None:
    assert holds(text, gold) is found


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("The answer is 42.", "42", True),
        ("The answer is $1,234.50.", "1234.5", False),  # a decimal that ends in 0 is not seen
        ("The answer is $1234.5.", "1234.5", True),
        ("The answer is 1,234 of them", "1234", False),  # a comma ends a number
        ("It is 42\nand so on", "42", False),  # a line end is a letter
        ("First\n42 is it", "42", False),
        ("It is 41, then 42", "42", True),
        ("It is 42%", "42", False),
        ("It is -3 ", "-3", True),
        ("no number", "42", False),
        ("It is 007", "7", False),
        ("It is 42 ... ,", "42", False),  # an empty number before a comma comes last
    ],
)
def test_the_released_reading_keeps_its_flaws(text: str, gold: str, right: bool) -> None:
    reading = find_reading("qwen_last_number")(Transcript(text, "", None), gold)
    assert reading.correct is right


def test_the_prompt_is_the_published_one_with_the_files_before_the_question() -> None:
    for task, row, files in (
        ("code_interpreter_general", "g02", "[上传文件订单.csv]"),
        ("code_interpreter_vis", "v09", "[Upload file rain.csv]"),
        ("code_interpreter_math", "m01", ""),
    ):
        item = items_of(task)[row]
        system, user = item.prompt.messages
        assert (system.role, system.content) == ("system", "You are a helpful assistant.")
        question = item.sample.row["question"]
        assert user.content.endswith(f"\n\nBegin!\n\nQuestion: {files}{question}")
        assert user.content.startswith(
            "Answer the following questions as best you can. You have access to the following "
            "tools:\n\ncode_interpreter: Call this tool to interact with the 代码解释器 API. "
            "What is the 代码解释器 API useful for? 代码解释器，可用于执行Python代码。 Parameters: "
            '[{"name": "code", "type": "string", "description": "待执行的代码"}] Enclose the code '
            "within triple backticks (`) at the beginning and end of the code.\n\nUse the following"
        )


def test_there_are_enough_problems_in_both_languages() -> None:
    found = {task: items_of(task) for task in TASKS}
    least = {
        "code_interpreter_math": 25,
        "code_interpreter_vis": 20,
        "code_interpreter_general": 15,
    }
    assert all(len(found[task]) >= count for task, count in least.items())
    rows = [item.sample.row for task in TASKS for item in found[task].values()]
    languages = Counter(row["lang"] for row in rows)
    assert min(languages["zh"], languages["en"]) >= 30
    assert len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        assert bool(re.search(r"[\u4e00-\u9fff]", row["question"])) is (row["lang"] == "zh")
    levels = Counter(
        item.sample.row["difficulty"] for item in found["code_interpreter_vis"].values()
    )
    assert min(levels["easy"], levels["hard"]) >= 10
    assert all(item.sample.row["check"] for item in found["code_interpreter_vis"].values())


def solved(sandbox: Sandbox, items: list[Item]) -> list[Finished]:
    class Oracle(Scripted):
        def submit(self, request: object) -> int:
            assert isinstance(request, GenerateRequest)
            self.replies = (request.reference or "",)
            return super().submit(request)

    return list(Runner(Oracle(""), SOLVERS["code_interpreter"], sandbox).run(items))


def flawless(finished: Finished) -> bool:
    return finished.score.status == "scored" and set(finished.score.values.values()) == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("task", [TASKS[0], TASKS[2]])
def test_every_reference_runs_and_is_right(sandbox: Sandbox, task: str) -> None:
    """The gold answers are right: what solves a problem gets all it can."""
    done = solved(sandbox, list(items_of(task).values()))
    assert not [finished for finished in done if not flawless(finished)]
    # Without a sandbox, what the cells put out is read again; so it is under the other recipe.
    solve = SOLVERS["code_interpreter"]
    recipes = [items_of(f"{task}@{recipe}") for recipe in find_task(task)[0].recipes]
    for finished in done:
        for items in recipes:
            item = items[finished.item.sample.row["id"]]
            assert replay(solve(item), finished.responses).values == finished.score.values


@pytest.mark.slow
def test_every_reference_draws_what_its_check_wants(sandbox: Sandbox) -> None:
    """One after the other in one session, of which nothing but the figures is kept."""
    rows = [item.sample.row for item in items_of(TASKS[1]).values()]
    files = {name: text.encode() for row in rows for name, text in row["files"].items()}
    forget = "for name in [n for n in globals() if n[:2] != '__']:\n    del globals()[name]"
    with sandbox.interpreter(PACKAGES, files) as session:
        assert session.run(module_cell("figure_checks"), 60).outcome == "done"
        for row in rows:
            drawn = session.run(row["code"], 60)
            assert (drawn.outcome, len(drawn.figures)) == ("done", 1), (row["id"], drawn.error)
            checked = session.run(row["check"], 60)
            assert checked.outcome == "done", (row["id"], checked.error)
            session.run(forget)


def test_some_references_run_and_are_right(sandbox: Sandbox) -> None:
    chosen = [items_of(task)[row] for task, row in (
        (TASKS[0], "m24"), (TASKS[1], "v13"), (TASKS[2], "g03"), (TASKS[2], "g15"),
    )]  # fmt: skip
    for finished in solved(sandbox, chosen):
        assert flawless(finished), finished
        has_gold = finished.item.sample.row["id"] != "g15"
        assert ("correct" in finished.score.values) is has_gold
        solver = SOLVERS["code_interpreter"](finished.item)
        assert replay(solver, finished.responses) == finished.score


@pytest.mark.slow
def test_no_check_is_content_with_another_figure_or_none(sandbox: Sandbox) -> None:
    checks = {i: item.sample.row["check"] for i, item in items_of(TASKS[1]).items()}
    with sandbox.interpreter(PACKAGES) as session:
        assert session.run(module_cell("figure_checks"), 60).outcome == "done"
        for draw in ("", "plt.figure()", "plt.plot([1, 5, 2])", "plt.bar(['a', 'b'], [1, 2])"):
            session.run(f"import matplotlib.pyplot as plt\n{draw}")
            for name, check in checks.items():
                assert session.run(check, 30).outcome == "raised", (name, draw)
    files = {i: r for i, item in items_of(TASKS[2]).items() if (r := item.sample.row)["check"]}
    assert len(files) >= 4
    for name, row in files.items():
        given = {file: text.encode() for file, text in row["files"].items()}
        with sandbox.interpreter((), given) as session:
            assert session.run(row["check"], 30).outcome == "raised", name
