"""What a policy is asked, from files of several kinds; what is left out is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.train.data.decontaminate import KnownTests, known_tests
from qwen_eval.train.queries import Prompts, Queries, gather_queries, query_of
from tests.model.toy_folder import CHATML, toy_tokenizer

USER = ("user", "What is the sea?")


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": USER[1], "chosen": "Water.", "rejected": "Land."}, (USER,)),
        (
            {"instruction": USER[1], "input": "Say it.", "output": "Water."},
            (("user", f"{USER[1]}\nSay it."),),
        ),
        ({"messages": [message(*USER)], "chosen": "Water."}, (USER,)),
        ({"messages": [message(*USER), message("assistant", "Water.")]}, (USER,)),
        (
            {"messages": [message(*USER), message("assistant", "Water."), message("user", "Why?")]},
            (USER, ("assistant", "Water."), ("user", "Why?")),
        ),
        (
            {
                "chosen": "\n\nHuman: 海？\n\nAssistant: 水。\n\nHuman: Why?\n\nAssistant: A.",
                "rejected": "\n\nHuman: 海？\n\nAssistant: 水。\n\nHuman: Why?\n\nAssistant: B.",
            },
            (("user", "海？"), ("assistant", "水。"), ("user", "Why?")),
        ),
    ],
)
def test_every_kind_of_row_is_asked_without_its_answer(row: dict[str, Any], wanted: Any) -> None:
    assert query_of(row, "here") == wanted


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "No question."}, "needs messages, instruction or prompt"),
        ({"messages": [message("assistant", "Hello.")]}, "no user asks anything"),
        ({"messages": [message("user", " "), message("assistant", "Hello.")]}, "no user asks"),
        ({"prompt": ""}, "no user asks anything"),
        (
            {"messages": [message(*USER), message("observation", "42"), message(*USER)]},
            "a tool's observations cannot be asked",
        ),
        ({"messages": [message("robot", "Hello.")]}, "a message needs role"),
    ],
)
def test_a_row_that_asks_nothing_is_named(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^some.jsonl, row 3: .*{said}"):
        query_of(row, "some.jsonl, row 3")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return load_tokenizer(toy_tokenizer(folder, specials=CHATML, eos_token="<|endoftext|>"))


def gathered(
    folder: Path,
    tokenizer: Tokenizer,
    asked: list[str],
    tests: KnownTests | None = None,
    held_out: float = 0.0,
) -> Queries:
    lines = "".join(json.dumps({"prompt": each}) + "\n" for each in asked)
    (folder / "some.jsonl").write_text(lines)
    prompts = {"some": Prompts(files=("*.jsonl",))}
    return gather_queries(
        prompts, held_out, folder, tests or known_tests({}, 13), tokenizer, longest=70
    )


def test_what_is_left_out_is_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    test = "one two three four five"
    tests = known_tests({"sums": iter([[test]])}, 5)
    found = gathered(tmp_path, tokenizer, ["Hi?", "Hi?", "x" * 50, f"{test}?", "Ho?"], tests)
    assert [query.named for query in found.trained] == [
        f"{tmp_path / 'some.jsonl'}, row 1 ('Hi?')",
        f"{tmp_path / 'some.jsonl'}, row 5 ('Ho?')",
    ]
    assert (found.repeated, found.too_long) == (1, 1)
    assert (dict(found.contaminated), dict(found.kept)) == ({"sums": 1}, {"some": 2})
    end = tokenizer.encode("assistant\n")
    assert list(found.trained[0].ids[-len(end) :]) == end, "the answer is what comes next"
    with pytest.raises(UserError, match=r"nothing to train on \(1 have more than 70 tokens\)"):
        gathered(tmp_path, tokenizer, ["x" * 50])


def test_what_is_held_out_is_never_trained_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    asked = [f"Question {number}?" for number in range(300)]
    all_of_it = gathered(tmp_path, tokenizer, asked)
    assert not all_of_it.held_out
    found = gathered(tmp_path, tokenizer, asked, held_out=0.3)
    trained, held = ({query.ids for query in side} for side in (found.trained, found.held_out))
    assert not trained & held
    assert trained | held == {query.ids for query in all_of_it.trained}
    assert 60 < len(held) < 120  # 90, give or take four standard deviations
    assert gathered(tmp_path, tokenizer, asked, held_out=0.3).digest() == found.digest()
