"""The HF agent: the three scores, a turn at a time, and that the right answers are right."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from qwen_eval.metrics import summarise
from qwen_eval.results import sample_record
from qwen_eval.runner import Finished, Runner, replay
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.tasks.interpreter import tools
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.tasks.solvers.hf_agent import TOOLS, code_worth, explained, tools_worth
from qwen_eval.types import ExecuteRequest, GenerateRequest, Item, Request, Response
from tests.tasks.agents import Scripted, cells_of, converse, items_of

SCORES = ("tool_selection", "tool_used", "code")


@pytest.fixture(scope="module")
def drawing() -> Item:
    """An image is to be drawn of `idea` and changed as `change` says: two tools."""
    return items_of("hf_agent_run")["r07"]


def said(code: str, *named: str) -> str:
    listed = ", ".join(f"`{name}`" for name in named)
    return f"I will use the tools {listed}.\n\nAnswer:\n```py\n{code}\n```\n"


DRAW = "image = image_generator(idea)\n"
CHANGE = "image_transformer(image, prompt=change)"
BOTH = ("image_generator", "image_transformer")


@pytest.mark.parametrize(
    ("reply", "worth"),
    [
        (said(DRAW + CHANGE, *BOTH), (1, 1, 1)),
        (said(f"{DRAW}final = {CHANGE}\nprint(final)", *BOTH), (1, 1, 1)),
        # The right value is in the state, and another one is the answer.
        (said(f"{DRAW}image = {CHANGE}\ndone = 'yes'", *BOTH), (1, 1, 0.75)),
        (said(f"{DRAW}for _ in range(1):\n    image = {CHANGE}", *BOTH), (1, 1, 0.75)),
        (said(DRAW, BOTH[0]), (0.75, 0.75, 0.3)),
        (said(DRAW + CHANGE, *BOTH, "translator"), (0.75, 1, 1)),
        (said(DRAW + CHANGE + "\nsummarizer\ntranslator", *BOTH), (1, 0.5, 0.3)),
        (said("text_reader(idea)", "text_reader"), (0.25, 0.25, 0.3)),
        (said(DRAW + CHANGE + "\nraise ValueError", *BOTH), (1, 1, 0.3)),
        (said("this is no code", *BOTH), (1, 0.5, 0.3)),
        (said("image_transformer('nothing', change)", *BOTH), (1, 0.75, 0.3)),
        ("I will use `image_generator` and `image_transformer`.", (1, 0.5, 0.3)),
        ("", (0.5, 0.5, 0.3)),
        # Without backquotes a tool is not selected; behind `Answer:` code needs no fence.
        (f"image_generator, image_transformer. Answer:\n{DRAW}{CHANGE}", (0.5, 1, 1)),
    ],
)
def test_a_reply_is_worth_what_the_published_weights_say(
    sandbox: Sandbox, drawing: Item, reply: str, worth: tuple[float, float, float]
) -> None:
    finished, _ = converse(drawing, sandbox, reply)
    values = finished.score.values
    assert tuple(values[name] for name in SCORES) == pytest.approx(worth)
    assert finished.error is None
    coded = "```" in reply or "Answer:" in reply
    assert finished.score.status == ("scored" if coded else "no_answer")


def test_a_tool_costs_a_quarter_whether_it_is_missing_or_too_much() -> None:
    names = list(TOOLS)
    for missing in range(6):
        for extra in range(6):
            wanted = {*names[:5]}
            named = {*names[: 5 - missing], *names[5 : 5 + extra]}
            expected = max(0.0, 1 - 0.25 * min(missing, 5) - 0.25 * extra)
            assert tools_worth(named, wanted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("told", "worth"),
    [
        ('{"answer": "a", "state": []}', 1.0),
        ('{"answer": null, "state": ["b", "a"]}', 0.75),
        ('{"answer": "b", "state": ["b"]}', 0.3),
        ("", 0.3),
        ("[]", 0.3),
        ('{"answer": ["a"], "state": 7}', 0.3),
        ('{"answer": {}, "state": [{}]}', 0.3),
        ("[" * 100_000, 0.3),
    ],
)
def test_whatever_a_session_tells_is_read(told: str, worth: float) -> None:
    assert code_worth(told, ["a"]) == worth


def test_the_first_code_counts_and_what_stands_before_it() -> None:
    assert explained("Use `a`.\n```py\nx\n```\nOr `b`:\n```\ny\n```") == ("Use `a`.\n", "x")
    assert explained("Use `a`. Answer: x = 1") == ("Use `a`. ", "x = 1")
    assert explained("Nothing.") == ("Nothing.", "")


def test_variables_are_kept_and_replies_are_heard(sandbox: Sandbox) -> None:
    item = items_of("hf_agent_chat")["c02"]
    turns = item.sample.row["turns"]
    replies = [turns[0]["reference"], "I cannot.", turns[2]["reference"]]
    finished, model = converse(item, sandbox, *replies)
    detail = finished.score.detail
    # The third turn reads a variable that the second did not make.
    assert detail["code"] == [1.0, 0.3, 0.3]
    assert detail["tool_used"] == [1.0, 0.75, 1.0]
    assert finished.score.values["code"] == pytest.approx(1.6 / 3)
    last = model.asked[-1]
    assert isinstance(last, GenerateRequest)
    roles = [message.role for message in last.prompt.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m.content for m in last.prompt.messages[2::2]] == replies[:2]
    repaired = [turns[0]["reference"], turns[1]["reference"], turns[2]["reference"]]
    assert converse(item, sandbox, *repaired)[0].score.values["code"] == 1.0


def requests_of(item: Item) -> Iterator[Request]:
    """What is asked of a model that answers right and of a session that runs all."""
    solver = SOLVERS["hf_agent"](item)
    request = next(solver)
    while True:
        yield request
        text = (request.reference or "") if isinstance(request, GenerateRequest) else ""
        try:
            request = solver.send(Response(text, passed=True))
        except StopIteration:
            return


def test_the_right_answer_never_enters_the_session() -> None:
    for task in ("hf_agent_run", "hf_agent_chat"):
        for item in items_of(task).values():
            answers = [answer for turn in item.sample.row["turns"] for answer in turn["answers"]]
            requests = list(requests_of(item))
            assert len(requests) == 3 * len(item.sample.row["turns"])
            for request in requests:
                if isinstance(request, ExecuteRequest):
                    seen = request.code + request.session.setup
                else:
                    assert isinstance(request, GenerateRequest)
                    seen = request.prompt.full_text
                assert not any(answer in seen for answer in answers)


def test_the_set_has_the_published_shape() -> None:
    run, chat = items_of("hf_agent_run"), items_of("hf_agent_chat")
    rows = [item.sample.row for item in run.values()]
    assert len(rows) == 27
    assert len({json.dumps([row["inputs"], row["turns"][0]["answers"]]) for row in rows}) == 11
    # Of one length, so that the mean over conversations is the one over turns.
    assert [len(item.sample.row["turns"]) for item in chat.values()] == [3] * 16
    assert {*TOOLS} == {*tools.TOOLS}
    assert len(TOOLS) == 14
    for item in [*run.values(), *chat.values()]:
        assert all(f"- {tool}(" in item.prompt.messages[0].content for tool in TOOLS)
        for turn in item.sample.row["turns"]:
            assert {*turn["tools"]} <= {*TOOLS}
            assert turn["tools"]


def solved(sandbox: Sandbox, items: list[Item]) -> list[Finished]:
    class Oracle(Scripted):
        def submit(self, request: object) -> int:
            assert isinstance(request, GenerateRequest)
            self.replies = (request.reference or "",)
            return super().submit(request)

    return list(Runner(Oracle(""), SOLVERS["hf_agent"], sandbox).run(items))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["hf_agent_run", "hf_agent_chat"])
def test_every_reference_gets_all_there_is(sandbox: Sandbox, task: str) -> None:
    for finished in solved(sandbox, list(items_of(task).values())):
        assert [finished.score.values[name] for name in SCORES] == [1.0] * 3, finished
        solver = SOLVERS["hf_agent"](finished.item)
        assert replay(solver, finished.responses) == finished.score


def test_a_conversations_turns_weigh_alike(sandbox: Sandbox) -> None:
    chat = items_of("hf_agent_chat")
    wrong, _ = converse(chat["c08"], sandbox, "I cannot.")
    (right,) = solved(sandbox, [chat["c01"]])
    assert len(cells_of(right)) == 6
    records = [sample_record(f.item, f.responses, f.score, f.error) for f in (wrong, right)]
    row = summarise("hf_agent_chat@strict", "code", records, also=SCORES[:2])
    assert row.overall is not None
    assert row.overall.estimate == pytest.approx((3 * 0.3 + 3 * 1.0) / 6)
    assert row.others["tool_used"].estimate == pytest.approx((3 * 0.75 + 3 * 1.0) / 6)
