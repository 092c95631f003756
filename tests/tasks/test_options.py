"""How options are weighed: sums, by length, whole contexts, a single continuation."""

from __future__ import annotations

import pytest

from qwen_eval.runner import replay
from qwen_eval.tasks.scorers import find_measure
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.types import Item, Prompt, Response, Sample

OPTIONS = (" a", " naïve", " 你好吗")


def item(scorer: str, **fields: object) -> Item:
    given = {"options": OPTIONS, "gold": 0} | fields
    sample = Sample("x", "toy", {})
    return Item(sample, "toy", Prompt(" goes on"), "", scorer, "accuracy", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scorer", "sizes"),
    [
        ("argmax", [1, 1, 1]),
        ("argmax_per_character", [1, 5, 3]),
        ("argmax_per_byte", [1, 6, 9]),
        ("argmax_per_token", [2, 3, 4]),
    ],
)
def test_what_a_log_probability_is_divided_by(scorer: str, sizes: list[int]) -> None:
    assert find_measure(scorer)(OPTIONS, (2, 3, 4)) == sizes


@pytest.mark.parametrize(
    ("scorer", "answer", "margin"),
    [
        # -2, -8, -6 as they are; per character -2, -1.6, -2; per byte -2, -1.33, -0.67.
        ("argmax", "a", 4.0),
        ("argmax_per_character", "naïve", 0.4),
        ("argmax_per_byte", "你好吗", (8 / 6 - 6 / 9) * 6),
        ("argmax_per_token", "a", 0.5 * 2),
    ],
)
def test_the_likeliest_option_wins(scorer: str, answer: str, margin: float) -> None:
    reply = Response(logprobs=(-2.0, -8.0, -6.0), token_counts=(2, 3, 4))
    score = replay(SOLVERS["choice"](item(scorer)), [reply])
    assert score.answer == answer
    assert score.detail["margin"] == pytest.approx(margin)
    assert score.values == {"accuracy": float(answer == "a")}


def test_tokens_that_are_not_counted_are_an_error_of_the_sample() -> None:
    reply = Response(logprobs=(-2.0, -8.0, -6.0))
    score = replay(SOLVERS["choice"](item("argmax_per_token")), [reply])
    assert (score.status, "does not count" in score.detail["error"]) == ("error", True)


def test_the_context_wins_after_which_the_same_words_are_likelier() -> None:
    asked = item("argmax", options=("Ann", "Bob"), gold=1)
    solver = SOLVERS["contexts"](asked)
    requests = [next(solver)]
    requests.append(solver.send(Response(logprobs=(-3.0,), token_counts=(1,))))
    with pytest.raises(StopIteration) as end:
        solver.send(Response(logprobs=(-2.5,), token_counts=(1,)))
    assert [r.prompt.full_text for r in requests] == ["Ann", "Bob"]  # type: ignore[union-attr]
    assert [r.continuations for r in requests] == [(" goes on",)] * 2  # type: ignore[union-attr]
    assert (end.value.value.answer, end.value.value.values) == ("Bob", {"accuracy": 1.0})
    assert end.value.value.detail["margin"] == 0.5


@pytest.mark.parametrize("greedy", [True, False])
def test_a_continuation_must_be_what_greedy_decoding_writes(greedy: bool) -> None:
    reply = Response(logprobs=(-1.5,), greedy=(greedy,))
    score = replay(SOLVERS["continuation"](item("greedy", options=(" cat",), gold=None)), [reply])
    assert score.values == {"accuracy": float(greedy)}
    assert score.detail == {"nats": 1.5}
