"""Good ReAct samples pass, each bad one is dropped for its own reason; the rest is bookkeeping."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.tasks.scorers.rouge import rouge_l, words
from qwen_eval.train.conversations import learnt, turns_of
from qwen_eval.train.data.decontaminate import known_tests
from qwen_eval.train.replies import Replies
from qwen_eval.train.self_instruct.likeness import Likeness
from qwen_eval.train.self_instruct.programs import calculate, run
from qwen_eval.train.self_instruct.rounds import Goal, KnownQuestions, Rounds
from qwen_eval.train.self_instruct.rules import DroppedError, check_call, check_whole
from qwen_eval.train.self_instruct.samples import Sample, fits, steps_of, tool_of
from qwen_eval.train.self_instruct.seeds import own_seeds, read_seeds
from qwen_eval.train.self_instruct.writing import SPEAKS_STOP, Manner, begin, write
from qwen_eval.types import GenerateRequest, Response
from tests.model.toy_folder import toy_checkpoint

WEATHER = tool_of(
    {
        "name": "weather",
        "description": "The weather of a day.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Which city."},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["city"],
        },
    }
)
SUM = tool_of(
    {
        "name": "arithmetic",
        "parameters": {
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    }
)
ASKED = " Will it rain in Oslo tomorrow?\n"
CALL = 'Thought: I look it up.\nAction: weather\nAction Input: {"city": "Oslo"}'
ANSWER = " I know.\nFinal Answer: Yes, it will rain."
GEFRAGT = " 明天奥斯陆会下雨吗？\n"
RUF = 'Thought: 我来查一下。\nAction: weather\nAction Input: {"city": "奥斯陆", "days": 1}'
ANTWORT = " 我知道了。\nFinal Answer: 明天会下雨。"


class Script:
    """Says one text after the other to each draft; ends at stop words as a backend does."""

    identity = "script"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def ask(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Response]]:
        for place, request in enumerate(requests):
            text = self.texts.pop(0)
            cuts = [at for stop in request.decoding.stop if (at := text.find(stop)) >= 0]
            yield place, Response(text=text[: min(cuts, default=None)], finish_reason="stop")

    def close(self) -> None:
        """Nothing to release."""


def written(
    tmp_path: Path, *texts: str, language: str = "en", simulate: bool = True
) -> Sample | str:
    """The sample that a model's texts make, judged as a whole too; or why it is dropped."""
    draft = begin("1-0", [], [WEATHER, SUM], language)
    with closing(Replies(tmp_path / "replies.jsonl")) as replies:
        write([draft], Script(*texts), replies, Manner(simulate=simulate, max_calls=2))
    if draft.sample is None:
        assert draft.dropped is not None
        return str(draft.dropped)
    try:
        check_whole(draft.sample, language)
    except DroppedError as dropped:
        return str(dropped)
    return draft.sample


@pytest.mark.parametrize(
    ("language", "texts", "trace"),
    [
        (
            "en",
            [ASKED + CALL, ' {"rain": true}', ANSWER],
            f'{CALL}\nObservation: {{"rain": true}}\nThought:{ANSWER}',
        ),
        ("zh", [GEFRAGT + RUF, " 有雨", ANTWORT], f"{RUF}\nObservation: 有雨\nThought:{ANTWORT}"),
        (
            "en",
            [
                " Who wrote Hamlet, and when?\nThought: I know it.\n"
                "Final Answer: Shakespeare, about 1600."
            ],
            "Thought: I know it.\nFinal Answer: Shakespeare, about 1600.",
        ),
        (
            "zh",
            [" 《静夜思》是谁写的？\nThought: 这是常识。\nFinal Answer: 李白。"],
            "Thought: 这是常识。\nFinal Answer: 李白。",
        ),
    ],
)
def test_good_samples_are_whole(
    tmp_path: Path, language: str, texts: list[str], trace: str
) -> None:
    sample = written(tmp_path, *texts, language=language)
    assert isinstance(sample, Sample), sample
    assert sample.trace == trace
    assert steps_of(sample.trace) is not None
    assert sample.language == language


def test_a_program_returns_what_is_true(tmp_path: Path) -> None:
    call = ' {"expression": "17 * 3 - 1"}'
    sample = written(
        tmp_path,
        f" What is 17 times 3, less one?\nThought: I count.\nAction: arithmetic\n"
        f"Action Input:{call}\nObservation: 49, I am sure",
        " Now I know.\nFinal Answer: 50",
        simulate=False,
    )
    assert isinstance(sample, Sample), sample
    assert [(step.observation, step.run) for step in sample.steps] == [("50", True)]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["Thought: x\nFinal Answer: y"], "form: no question"),
        ([" One?\nTwo?\nThought: x\nFinal Answer: y"], "form: a question of several lines"),
        ([ASKED], "form: labels"),
        ([ASKED + "Thought: x"], "form: labels"),
        ([ASKED + "Action: weather\nAction Input: {}\nThought: x"], "form: labels"),
        ([ASKED + "Thought: x\nAction Input: {}\nAction: weather"], "form: labels"),
        ([ASKED + "Thought: \nFinal Answer: y"], "form: an empty part"),
        ([ASKED + CALL + "\nFinal Answer: yes"], "form: labels"),
        ([ASKED + CALL, " rain", " x\nFinal Answer: y\nFinal Answer: z"], "form: labels"),
        ([ASKED + CALL.replace("weather", "oracle")], "call: a tool that is not there"),
        ([ASKED + CALL.replace('{"city": "Oslo"}', "Oslo")], "call: arguments are not JSON"),
        ([ASKED + CALL.replace('{"city": "Oslo"}', '["Oslo"]')], "call: arguments are no object"),
        ([ASKED + CALL.replace("city", "town")], "call: an argument is missing"),
        ([ASKED + CALL.replace("{", '{"when": 1, ')], "call: an argument that the tool"),
        ([ASKED + CALL.replace("{", '{"days": "two", ')], "call: an argument that does not fit"),
        ([ASKED + CALL.replace("{", '{"days": 8, ')], "call: an argument that does not fit"),
        ([ASKED + CALL.replace("{", '{"unit": "K", ')], "call: an argument that does not fit"),
        ([ASKED + CALL, " "], "observation: nothing"),
        ([ASKED + CALL, "x" * 2001], "observation: too long"),
        ([ASKED + CALL, " a", " x\nAction: weather\nAction Input: {'city': 'A'}", " b",
          " x\nAction: weather\nAction Input: {'city': 'B'}", " c"], "call: more than 2 calls"),
        ([ASKED + CALL, " a", CALL.removeprefix("Thought:"), " b", ANSWER], "call: the same call"),
        ([GEFRAGT + "Thought: x\nFinal Answer: y"], "language: a question"),
        ([ASKED + "Thought: x\nFinal Answer: 会下雨。"], "language: an answer"),
        ([" Why?\nThought: x\nFinal Answer: y"], "length: a question of few"),
        ([" Why" + " so" * 300 + "?\nThought: x\nFinal Answer: y"], "length: a question of many"),
        ([ASKED + f"Thought: {'x' * 801}\nFinal Answer: y"], "length: a long thought"),
        ([ASKED + "Thought: x\nFinal Answer: the final answer to the original input question"],
         "form: words of the format"),
    ],
)  # fmt: skip
def test_bad_samples_are_dropped_for_their_reason(
    tmp_path: Path, texts: list[str], reason: str
) -> None:
    dropped = written(tmp_path, *texts)
    assert isinstance(dropped, str), dropped
    assert dropped.startswith(reason)


def test_an_observation_that_a_backend_let_through_is_seen(tmp_path: Path) -> None:
    class Deaf(Script):
        """Knows no stop words."""

        def ask(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Response]]:
            yield 0, Response(text=self.texts.pop(0), finish_reason="stop")

    draft = begin("1-0", [], [WEATHER], "en")
    with closing(Replies(tmp_path / "replies.jsonl")) as replies:
        write([draft], Deaf(f"{ASKED}{CALL}\nObservation: sun"), replies, Manner())
    assert str(draft.dropped) == "form: an observation that no tool returned"


def test_a_tool_is_not_played_if_that_is_not_wanted(tmp_path: Path) -> None:
    assert written(tmp_path, ASKED + CALL, simulate=False) == "observation: its tool is no program"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from("ab"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
SCHEMA = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2),
            "minimum": st.integers(-2, 2),
        },
    )
    | st.fixed_dictionaries({"enum": st.lists(st.sampled_from(["a", "b", 1]), min_size=1)}),
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
                "required": st.lists(st.sampled_from("ab"), unique=True),
            }
        )
    ),
    max_leaves=3,
)


@given(JSON, SCHEMA)
def test_arguments_fit_as_jsonschema_says(value: Any, schema: dict[str, Any]) -> None:
    if "enum" in schema and isinstance(value, bool | float):
        return  # to Python True is 1, to JSON it is not; no tool has such an enum
    assert fits(value, schema) is jsonschema.Draft202012Validator(schema).is_valid(value)


WORDS = st.lists(st.sampled_from(["red", "blue", "green", "one"]), min_size=1, max_size=7).map(
    " ".join
)


@given(st.lists(WORDS, max_size=6), WORDS, st.sampled_from([0.4, 0.5, 0.7, 1.0]))
def test_likeness_is_rouge_l_with_every_text(texts: list[str], text: str, least: float) -> None:
    """Held against the rouge_score package, which Self-Instruct uses."""
    likeness = Likeness(words, lambda one, other: rouge_l(one, other, words), least)
    for one in texts:
        likeness.add(one)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    # Rouge computes 2pr / (p + r), which rounding may put just below a bound that it equals.
    like = [one for one in texts if scorer.score(one, text)["rougeL"].fmeasure >= least - 1e-9]
    assert likeness.like(text) == (like[0] if like else None)


def test_the_programs_are_right() -> None:
    rng = random.Random(1)
    for _ in range(200):
        expression = f"({rng.randint(-9, 9)} + {rng.randint(1, 9)}) * {rng.randint(1, 9)} / 4"
        assert float(calculate(expression)) == pytest.approx(eval(expression))
    assert run("days_between", {"start": "2024-02-28", "end": "2024-03-01"}) == "2"
    assert run("weekday", {"day": "2000-01-01"}) == "Saturday"
    assert run("count_in_text", {"text": "Banana", "what": "a"}) == "3"
    assert run("oracle", {}) is None
    for bad in ("9 ** 9 ** 9", "__import__('os')", "1 / 0", "1e30 * 10", "(" * 500, ""):
        assert str(run("arithmetic", {"expression": bad})).startswith("Error: ")
    assert str(run("weekday", {"day": "soon"})).startswith("Error: ")


def test_our_seeds_are_good_and_true() -> None:
    seeds = own_seeds()
    assert {seed.language for seed in seeds} == {"en", "zh"}
    for seed in seeds:
        check_whole(seed, seed.language)
        for step in seed.steps:
            _, arguments = check_call(step, seed.tools)
            assert run(step.action, arguments) == step.observation
        for number in re.findall(
            r"\d+(?:\.\d+)?", seed.steps[-1].observation if seed.steps else ""
        ):
            assert float(number) in {float(n) for n in re.findall(r"\d+(?:\.\d+)?", seed.answer)}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_seeds_of_conversations_are_read(mirror: Path, language: str) -> None:
    seeds, left = read_seeds([mirror / "tools" / f"glaive_toolcall_{language}.jsonl.gz"])
    assert len(seeds) + left == 300
    assert len(seeds) > 150
    assert all(steps_of(seed.trace) is not None for seed in seeds)
    assert {seed.language for seed in seeds} >= {language}


@pytest.mark.parametrize(
    "row",
    [
        {"query": "Q?", "tools": [], "trace": "Final Answer: x"},
        {"query": "Q?", "tools": [{"name": "x"}], "trace": "Thought: x\nFinal Answer: y"},
        {"text": "x"},
        {"conversations": [{"role": "x"}], "tools": '[{"name": "x"}]'},
        {"conversations": [], "tools": "no JSON"},
    ],
)
def test_what_is_no_seed_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"seeds\.jsonl, row 1"):
        read_seeds([path])


def test_what_is_like_a_test_a_seed_or_a_kept_one_goes(tmp_path: Path) -> None:
    def likeness(*texts: str) -> Likeness:
        found = Likeness(words, lambda one, other: rouge_l(one, other, words))
        for text in texts:
            found.add(text)
        return found

    thirteen = "Tell me which of the many bridges over the river Thames is the oldest one"
    tests = KnownQuestions(
        known_tests({"exam": [[thirteen + " still in use"]]}), likeness("How high is Everest now?")
    )
    questions = [
        "Who was the first king of Norway?",
        "Who was the first king of Norway, then?",
        "How high is Everest right now?",
        f"{thirteen}, and also who built it, from which stone, in which year, for how much?",
        "When did the war of the roses end?",
        "Where do polar bears sleep in summer?",
    ]
    seeds = [seed for seed in own_seeds() if seed.language == "en"]
    model = Script(*(f" {text}\nThought: I know.\nFinal Answer: So." for text in questions))
    with closing(Replies(tmp_path / "replies.jsonl")) as replies:
        rounds = Rounds(
            seeds,
            model,
            replies,
            Goal(samples=2, rounds=3, asked=6),
            Manner(),
            likeness(*(seed.query for seed in seeds), "When did the war of roses end?"),
            tests,
            lambda _: None,
        )
        rounds.run()
    assert [sample.query for sample in rounds.kept] == [questions[0], questions[5]]
    assert [(outcome.filter, outcome.like) for outcome in rounds.outcomes] == [
        ("", ""),
        ("likeness", questions[0]),
        ("test sets", ""),
        ("test sets", ""),
        ("likeness", "When did the war of roses end?"),
        ("", ""),
    ]
    assert SPEAKS_STOP[0] == "\nObservation"


def test_fine_tuning_learns_all_but_what_tools_returned(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(toy_checkpoint(tmp_path))
    sample = next(seed for seed in own_seeds() if len(seed.steps) == 2)
    turns = [("user", sample.query), *sample.turns]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    ids, wanted = learnt(turns_of(row, "here"), tokenizer, "paper")
    said = tokenizer.decode([token for token, learns in zip(ids, wanted, strict=True) if learns])
    first, second = (step.observation for step in sample.steps)
    expected = sample.trace.replace(f"Observation: {first}\nThought:", "Observation:")
    expected = expected.replace(f"Observation: {second}\nThought:", "Observation:")
    assert said.removesuffix("<|im_end|>") == expected
    assert sample.trace in tokenizer.decode(ids)
