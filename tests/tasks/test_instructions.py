"""IFEval's checkers behind the scorer: what a prompt and what an instruction is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwen_eval.fileio import read_jsonl
from qwen_eval.metrics import summarise
from qwen_eval.tasks.scorers.instructions import instructions
from qwen_eval.types import Item, Prompt, Sample, Score
from tests.harness import toys

Asked = tuple[str, dict[str, Any]]


def scored(reply: str, *asked: Asked) -> Score:
    row = {
        "prompt": "Do it.",
        "instruction_id_list": [name for name, _ in asked],
        "kwargs": [settings for _, settings in asked],
    }
    sample = Sample("1", "ifeval", row)
    return instructions(reply, Item(sample, "ifeval@strict", Prompt("?"), "", "instructions", "m"))


NO_COMMA: Asked = ("punctuation:no_comma", {})
TWO_SENTENCES = (
    "length_constraints:number_sentences",
    {"relation": "at least", "num_sentences": 2},
)
LOWER: Asked = ("change_case:english_lowercase", {})
GERMAN = ("language:response_language", {"language": "de"})
CAPITALS = (
    "change_case:capital_word_frequency",
    {"capital_frequency": 2, "capital_relation": "at least"},
)


@pytest.mark.parametrize(
    ("reply", "asked", "kept"),
    [
        ("One. Two.", [NO_COMMA, TWO_SENTENCES], [True, True]),
        ("One, two.", [NO_COMMA, TWO_SENTENCES], [False, False]),
        # Dr. ends no sentence: that is known from NLTK's trained model alone.
        ("We met Dr. Smith.", [TWO_SENTENCES], [False]),
        ("all of this is written in small letters.", [LOWER], [True]),
        ("Das ist ein deutscher Satz und noch etwas mehr.", [GERMAN, NO_COMMA], [True, True]),
        ("THIS is LOUD", [CAPITALS], [True]),
        ("", [NO_COMMA], [False]),
    ],
)
def test_instructions_by_hand(reply: str, asked: list[Asked], kept: list[bool]) -> None:
    score = scored(reply, *asked)
    assert score.values["m"] == float(all(kept))
    assert score.values["inst_level_strict"] == sum(kept) / len(kept)
    assert score.values["instructions"] == len(kept)
    assert score.detail["broken"] == [
        name for (name, _), k in zip(asked, kept, strict=True) if not k
    ]
    assert (score.status == "no_answer") == (not reply)


def test_leniency_drops_a_first_line() -> None:
    score = scored("Sure, here it is:\nno comma here", NO_COMMA)
    assert (score.values["m"], score.values["prompt_level_loose"]) == (0.0, 1.0)


def test_a_prompt_weighs_as_much_as_it_has_instructions() -> None:
    scores = [scored("One, two.", NO_COMMA), scored("One. Two.", NO_COMMA, TWO_SENTENCES, CAPITALS)]
    records = [toys.record(i, values=dict(score.values)) for i, score in enumerate(scores)]
    metrics = summarise("ifeval@strict", "m", records, also=["inst_level_strict"])
    assert metrics.others["inst_level_strict"].estimate == pytest.approx(2 / 4)
    assert metrics.overall is not None
    assert metrics.overall.estimate == 0.0


@pytest.mark.slow
def test_every_row_of_the_set_is_checked_as_lm_eval_checks_it(mirror: Path) -> None:
    from qwen_eval.tasks.scorers.guarded_worker import _sentence_model

    _sentence_model()
    from lm_eval.tasks.ifeval.utils import process_results

    for row in list(read_jsonl(mirror / "ifeval" / "test.jsonl.gz"))[::9]:
        reply = f"{row['prompt'][:80]} *one*\n\n***\n\nTHE answer. P.S. yes"
        theirs = process_results(row, [reply])
        sample = Sample("1", "ifeval", row)
        item = Item(sample, "ifeval@strict", Prompt("?"), "", "instructions", "m")
        ours = instructions(reply, item).values
        kept = theirs["inst_level_strict_acc"]
        assert ours["m"] == float(theirs["prompt_level_strict_acc"])
        assert ours["prompt_level_loose"] == float(theirs["prompt_level_loose_acc"])
        assert ours["inst_level_strict"] == sum(kept) / len(kept)
