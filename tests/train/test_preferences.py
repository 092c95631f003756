"""Rows of every format become two conversations with a common beginning, judged at their ends."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl
from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.train.preferences import (
    FaultyPairError,
    Pair,
    PairFeed,
    encode_pair,
    pair_of,
    place_of,
)
from tests.model.toy_folder import CHATML, toy_tokenizer

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("QWEN_EVAL_DATA", ROOT / "../shared/data"))
ASKED = ({"role": "user", "content": "1+1?"},)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return load_tokenizer(toy_tokenizer(folder, specials=CHATML, eos_token="<|endoftext|>"))


@pytest.mark.parametrize(
    ("row", "prompt", "margin"),
    [
        ({"prompt": "1+1?"}, (("user", "1+1?"),), 0.0),
        ({"messages": [*ASKED], "margin": 2}, (("user", "1+1?"),), 2.0),
        (
            {"messages": [{"role": "system", "content": "S"}, *ASKED], "margin": None},
            (("system", "S"), ("user", "1+1?")),
            0.0,
        ),
    ],
)
def test_answers_to_a_prompt_or_to_messages(row, prompt, margin) -> None:
    pair = pair_of(row | {"chosen": "2", "rejected": " 3 "}, "here")
    assert pair == Pair(prompt, "2", " 3 ", margin, "here")


def test_whole_dialogues() -> None:
    begun = "\n\nHuman: Hi\nHuman: no turn\n\nAssistant: Hello\n\nHuman: 1+1?\n\nAssistant:"
    pair = pair_of({"chosen": f"{begun} 2\n\nor so", "rejected": f"{begun} 3"}, "here")
    turns = (("user", "Hi\nHuman: no turn"), ("assistant", "Hello"), ("user", "1+1?"))
    assert pair == Pair(turns, "2\n\nor so", "3", 0.0, "here")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a", "chosen": "2", "rejected": "2 "}, "chosen and rejected are equal"),
        ({"prompt": "a", "chosen": " ", "rejected": "2"}, r"an empty answer \(chosen\)"),
        ({"prompt": "a", "chosen": "2", "rejected": ""}, r"an empty answer \(rejected\)"),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: 2",
                "rejected": "\n\nHuman: b\n\nAssistant: 3",
            },
            "part before the last answer",
        ),
    ],
)
def test_pairs_that_say_nothing(row, problem) -> None:
    with pytest.raises(FaultyPairError, match=f"^file, row 3: .*{problem}.*faulty: leave_out"):
        pair_of(row, "file, row 3")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a", "chosen": "2"}, "needs the texts chosen and rejected"),
        ({"prompt": "a", "chosen": "2", "rejected": 3}, "needs the texts chosen and rejected"),
        ({"prompt": ["a"], "chosen": "2", "rejected": "3"}, "prompt is no text"),
        ({"messages": "a", "chosen": "2", "rejected": "3"}, "a message needs role"),
        ({"messages": [], "chosen": "2", "rejected": "3"}, "must end with a user's"),
        (
            {"messages": [{"role": "assistant", "content": "x"}], "chosen": "2", "rejected": "3"},
            "must end with a user's",
        ),
        ({"prompt": "a", "chosen": "2", "rejected": "3", "margin": "1"}, "margin is no number"),
        ({"prompt": "a", "chosen": "2", "rejected": "3", "margin": True}, "margin is no number"),
        ({"chosen": "2", "rejected": "3"}, "dialogues of Human: and Assistant:"),
        (
            {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a\n\nAssistant: 3"},
            "end with an assistant's turn",
        ),
        (
            {"chosen": "x\n\nHuman: a\n\nAssistant: 2", "rejected": "\n\nHuman: a\n\nAssistant: 3"},
            "dialogues of Human: and Assistant:",
        ),
        (
            {"chosen": "\n\nAssistant: 2", "rejected": "\n\nAssistant: 3"},
            "must end with a user's",
        ),
    ],
)
def test_what_is_no_pair_is_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=f"^file, row 3: .*{problem}") as told:
        pair_of(row, "file, row 3")
    assert not isinstance(told.value, FaultyPairError)


def test_conversations_begin_alike_and_end_with_the_answers_end(tokenizer: Tokenizer) -> None:
    pair = pair_of({"messages": [*ASKED], "chosen": "zwei", "rejected": "<|im_end|>3"}, "here")
    encoded = encode_pair(pair, tokenizer, 100)
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    begun = f"{system}<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    found = [
        tokenizer.decode(ids.tolist(), show_special=True)
        for ids in (encoded.chosen_ids, encoded.rejected_ids)
    ]
    assert found == [f"{begun}zwei<|im_end|>", f"{begun}<|im_end|>3<|im_end|>"]
    end = tokenizer.special("<|im_end|>")
    # What looks like an end inside an answer is text, so the reward stands at the last id only.
    assert (encoded.rejected_ids[encoded.answer_at :] == end).nonzero().flatten().tolist() == [11]
    assert torch.equal(
        *(i[: encoded.answer_at] for i in (encoded.chosen_ids, encoded.rejected_ids))
    )
    assert encoded.tokens == (4, 11)


def test_what_is_longer_than_the_context_has_no_reward(tokenizer: Tokenizer) -> None:
    pair = pair_of({"messages": [*ASKED], "chosen": "22", "rejected": "3"}, "file, row 3")
    whole = encode_pair(pair, tokenizer, 1000)
    needed = len(whole.chosen_ids)
    assert len(encode_pair(pair, tokenizer, needed).chosen_ids) == needed
    for length, problem in (
        (needed - 1, "prompt and answer are longer than the context"),
        (whole.answer_at, "its prompt is longer than the context"),
    ):
        with pytest.raises(FaultyPairError, match=f"^file, row 3: {problem}, which is {length};"):
            encode_pair(pair, tokenizer, length)


def test_what_goes_on_from_one_question_falls_on_one_side() -> None:
    first = ("user", "Why?")
    assert place_of((first,)) == place_of(
        (("system", "S"), ("user", "Why? "), ("assistant", "So."), ("user", "Really?"))
    )
    places = sorted(place_of((("user", f"question {n}"),)) for n in range(2000))
    # Uniform: Kolmogorov's distance, whose 99.9% point is 1.95 / sqrt(n).
    distance = max(abs(place - (n + 0.5) / 2000) for n, place in enumerate(places))
    assert distance < 1.95 / 2000**0.5


def test_parts_hold_the_chosen_first_and_fill_up_behind_the_ends(tokenizer: Tokenizer) -> None:
    rows = [
        {"prompt": "q" * n, "chosen": "c" * (n + 1), "rejected": "r", "margin": n} for n in range(5)
    ]
    pairs = [encode_pair(pair_of(row, f"row {n}"), tokenizer, 99) for n, row in enumerate(rows)]
    feed = PairFeed(pairs, seed=1)
    assert sorted(feed.places(0, 5)) == list(range(5))
    assert feed.tokens_asked([3, 3]) == 2
    assert feed.length == math.ceil(sum(len(p.chosen_ids) + len(p.rejected_ids) for p in pairs) / 5)
    parts = list(feed.parts([4, 0, 2], 2))
    assert [len(part.names_P) for part in parts] == [2, 1]
    part = parts[0]
    assert part.margins_P.tolist() == [4, 0]
    assert part.names_P == ("row 4 ('qqqq')", "row 0 ('')")
    wanted = [
        pairs[4].chosen_ids,
        pairs[0].chosen_ids,
        pairs[4].rejected_ids,
        pairs[0].rejected_ids,
    ]
    for row, end, ids in zip(part.ids_BS, part.ends_B.tolist(), wanted, strict=True):
        assert row[: end + 1].tolist() == ids.tolist()
        assert not row[end + 1 :].any()
    assert next(PairFeed(pairs, 1, 99).parts([0], 1)).ids_BS.shape == (2, 99)


@pytest.mark.skipif(not (DATA / "hh").is_dir(), reason="needs the data mirror")
def test_every_set_of_the_mirror_is_read(tokenizer: Tokenizer) -> None:
    """All rows are pairs, and few of them faulty: empty answers and parting dialogues in hh."""
    faults: dict[str, dict[str, int]] = {}
    for path in [*DATA.glob("hh/*.jsonl.gz"), *DATA.glob("prefs/*.jsonl.gz")]:
        of = faults.setdefault(path.parent.name, {})
        for number, row in enumerate(read_jsonl(path), 1):
            try:
                pair = pair_of(row, f"{path.name}, row {number}")
            except FaultyPairError as fault:
                of[fault.cause] = of.get(fault.cause, 0) + 1
                continue
            assert pair.prompt[-1][0] == "user"
            if path.parent.name == "hh":
                said = "".join(f"\n\n{role}: {text}" for role, text in pair.prompt)
                spoken = said.replace("\n\nuser:", "\n\nHuman:")
                spoken = spoken.replace("\n\nassistant:", "\n\nAssistant:")
                whole = f"{spoken} Assistant: {pair.chosen}"
                assert row["chosen"].split() == whole.split()
    assert faults == {
        "hh": {"an empty answer": 4, "the dialogues part before the last answer": 5},
        "prefs": {},
    }
