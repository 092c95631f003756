"""The instructions: what each must hold, how they are spread, and that they are nobody else's."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui import instructions as package
from qwen_eval.human_eval_ui.instructions import (
    CATEGORIES,
    LETTERS,
    Category,
    Instruction,
    instructions_hash,
    load_instructions,
    read_instructions,
)

FOLDER = Path(package.__file__).parent
LANGUAGES = ("zh", "en")
# The paper gives the sum and the five categories; the split is ours.
COUNTS: dict[Category, int] = {
    "knowledge": 60,
    "understanding": 60,
    "writing": 80,
    "mathematics": 50,
    "coding": 50,
}
SHARES = {"easy": 0.30, "medium": 0.45, "hard": 0.25}
KEYS = ["id", "category", "difficulty", "text", "points", "answer"]
# What makes a right answer wrong some day.
DATED = re.compile(
    r"今年|明年|现任|近年来|当前最新|202\d ?年"
    r"|\b(?:(?:this|next) year|currently|nowadays|recent years|latest version|202\d)\b",
    re.IGNORECASE,
)
HAN = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
# How long a point may be, in characters: an annotator reads it beside two answers.
LONGEST = {"zh": 100, "en": 200}
# Where the answers of the two languages hold other numbers: dates that Chinese spells out, another
# word to explain, a month without its number.
OTHER_NUMBERS = {"k029", "l031", "l048"}
# Text to learn from rather than tests: old poems and books are there for everyone to quote.
RAW = ("pretrain", "longdoc", "wikitext2")
GOOD: dict[str, Any] = {
    "id": "k001",
    "category": "knowledge",
    "difficulty": "easy",
    "text": "水在标准大气压下多少度沸腾？",
    "points": ["一百摄氏度。", "提到气压。", "不谈别的。"],
    "answer": "100 ℃",
}


in_every_language = pytest.mark.parametrize("language", LANGUAGES)
of_every_category = pytest.mark.parametrize("category", CATEGORIES)


@in_every_language
@of_every_category
def test_a_category_has_its_number_and_its_spread(category: Category, language: str) -> None:
    found = read_instructions(FOLDER / language / f"{category}.jsonl", category)
    assert len(found) == COUNTS[category]
    for difficulty, share in SHARES.items():
        of_it = sum(i.difficulty == difficulty for i in found)
        assert of_it / len(found) == pytest.approx(share, abs=0.05), difficulty


@in_every_language
@of_every_category
def test_lines_are_plain_and_alike(category: Category, language: str) -> None:
    path = FOLDER / language / f"{category}.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        assert list(raw) == KEYS[: len(raw)]
        assert line == json.dumps(raw, ensure_ascii=False)


@in_every_language
@of_every_category
def test_an_instruction_is_clean_and_does_not_date(category: Category, language: str) -> None:
    for found in read_instructions(FOLDER / language / f"{category}.jsonl", category):
        for text in (found.text, *found.points, found.answer or ""):
            assert text == text.strip(), found.id
            assert "\ufffd" not in text, found.id
            assert not DATED.search(text), found.id
            assert language != "en" or not HAN.search(text), found.id
        assert language != "zh" or HAN.search(found.text), found.id
        assert len(set(found.points)) == len(found.points), found.id
        assert all(len(point) <= LONGEST[language] for point in found.points), found.id


@in_every_language
def test_only_what_has_one_result_has_an_answer(language: str) -> None:
    every = load_instructions(language)
    answered = {i.category for i in every if i.answer is not None}
    assert "mathematics" in answered
    assert not answered & {"coding", "writing"}
    for found in every:
        if found.category == "mathematics":
            asks_for_a_proof = re.search("证明|[Pp]rove", found.text)
            assert found.answer is not None or asks_for_a_proof, found.id


@in_every_language
def test_they_are_three_hundred_in_order(language: str) -> None:
    due = [f"{LETTERS[c]}{n:03}" for c in CATEGORIES for n in range(1, COUNTS[c] + 1)]
    assert [i.id for i in load_instructions(language)] == due
    assert len(due) == len(set(due)) == 300


def test_the_languages_agree() -> None:
    other_numbers = set()
    for zh, en in zip(load_instructions("zh"), load_instructions("en"), strict=True):
        assert (zh.id, zh.category, zh.difficulty) == (en.id, en.category, en.difficulty)
        assert len(zh.points) == len(en.points), zh.id
        assert (zh.answer is None) == (en.answer is None), zh.id
        if numbers(zh.answer or "") != numbers(en.answer or ""):
            other_numbers.add(zh.id)
    assert other_numbers == OTHER_NUMBERS


def numbers(text: str) -> list[float]:
    """The numbers in digits of a text, ③ for one, in ascending order."""
    found = re.findall(r"[①-⑳]|\d+(?:\.\d+)?", text)
    return sorted(float(n) if n.isascii() else unicodedata.numeric(n) for n in found)


@in_every_language
def test_no_two_are_alike(language: str) -> None:
    shingles = {i.id: shingled(i.text) for i in load_instructions(language)}
    for left, right in combinations(shingles, 2):
        assert likeness(shingles[left], shingles[right]) < 0.2, f"{left} and {right}"


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("小明有十二个苹果，分给三个同学，每人四个，还剩几个？", "苹果", "桃子"),
        ("Ming shares twelve apples among three friends. How many each?", "apples", "plums"),
    ],
)
def test_one_word_in_ten_leaves_a_text_alike(text: str, old: str, new: str) -> None:
    assert likeness(shingled(text), shingled(text.replace(old, new))) > 0.2


def likeness(a: set[str], b: set[str]) -> float:
    """Jaccard's index; their union is counted, not made, as it takes most of the time."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def shingled(text: str) -> set[str]:
    """The runs of five characters, blanks aside; the text itself where it is shorter."""
    text = "".join(text.split())
    return {text[at : at + 5] for at in range(max(1, len(text) - 4))}


@pytest.mark.slow
def test_none_shares_thirteen_words_with_a_test_set(mirror: Path) -> None:
    import numpy as np

    from qwen_eval.ngrams import ngrams, words

    texts = {f"{lang} {i.id}": i.text for lang in LANGUAGES for i in load_instructions(lang)}
    # One of the mirror's own in each language among them, so that the search is seen to find.
    for name in ("cmath", "gsm8k"):
        with gzip.open(mirror / name / "test.jsonl.gz", "rt", encoding="utf-8") as file:
            texts[name] = max((json.loads(line)["question"] for line in file), key=len)
    grams = {name: ngrams(words(text), 13) for name, text in texts.items()}
    owners = np.concatenate([[name] * len(found) for name, found in grams.items()])
    ours = np.concatenate(list(grams.values()))
    shared: dict[str, str] = {}
    for path in sorted(mirror.rglob("*.jsonl.gz")):
        if path.parent.name in RAW:
            continue
        rows = texts_of(path)
        while part := list(islice(rows, 2000)):
            hits = owners[np.isin(ours, ngrams(words("\n".join(part)), 13))]
            shared |= dict.fromkeys(hits.tolist(), str(path.relative_to(mirror)))
    assert shared.pop("cmath") == "cmath/test.jsonl.gz"
    assert shared.pop("gsm8k") == "gsm8k/test.jsonl.gz"
    assert not shared


def texts_of(path: Path) -> Iterator[str]:
    """Every text in a mirror's file, however deep it stands."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            waiting = [json.loads(line)]
            while waiting:
                value = waiting.pop()
                if isinstance(value, str):
                    yield value
                elif isinstance(value, dict):
                    waiting.extend(value.values())
                elif isinstance(value, list):
                    waiting.extend(value)


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    second = {k: v for k, v in GOOD.items() if k != "answer"} | {"id": "k002"}
    path = written(tmp_path, GOOD, second)
    first, other = read_instructions(path, "knowledge")
    assert first == Instruction(**GOOD | {"points": tuple(GOOD["points"])})
    assert other == replace(first, id="k002", answer=None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"difficulty": "simple"}, "difficulty: Input should be 'easy', 'medium' or 'hard'"),
        ({"points": ["一。", "二。"]}, "points: Tuple should have at least 3 items"),
        ({"points": ["一。"] * 7}, "points: Tuple should have at most 6 items"),
        ({"points": ["一。", "二。", " "]}, "points.2: String should match"),
        ({"text": ""}, "text: String should match"),
        ({"answer": 100}, "answer: Input should be a valid string"),
        ({"category": "coding"}, "category: expected knowledge, not coding"),
        ({"id": "k003"}, "id: expected k002, not k003"),
        ({"id": "k001"}, "id: expected k002, not k001"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    path = written(tmp_path, GOOD, GOOD | {"id": "k002"} | change)
    with pytest.raises(UserError, match=re.escape(f"{path}, line 2: {problem}")):
        read_instructions(path, "knowledge")


@pytest.mark.parametrize("line", ["{", "", "[]", '{"id": "k001"}'])
def test_a_line_that_is_no_instruction(tmp_path: Path, line: str) -> None:
    path = tmp_path / "knowledge.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 1: ")):
        read_instructions(path, "knowledge")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'none.jsonl'}: cannot be read")):
        read_instructions(tmp_path / "none.jsonl", "writing")


@pytest.mark.parametrize("language", ["xx", "", "../zh", "__pycache__"])
def test_a_language_without_instructions(language: str) -> None:
    with pytest.raises(UserError, match="there are: en, zh"):
        load_instructions(language)


def test_the_hash_sees_every_change(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, GOOD | {"id": "k002"})
    found = read_instructions(path, "knowledge")
    first, second = found
    changed = [
        found,
        [first],
        [second, first],
        [replace(first, text="水？"), second],
        [replace(first, points=("一。", "二。", "三。")), second],
        [replace(first, answer=None), second],
        [replace(first, difficulty="hard"), second],
    ]
    assert len({instructions_hash(each) for each in changed}) == len(changed)
    assert instructions_hash(found) == instructions_hash(read_instructions(path, "knowledge"))


def written(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "knowledge.jsonl"
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path
