"""Something hidden in a long text: the sets, how a prompt of a length is built, and what is read in
the reply."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.datasets import open_data
from qwen_eval.fileio import read_jsonl
from qwen_eval.model import bundled
from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.prompts import Renderer, prompts_digest
from qwen_eval.runner import Runner, replay
from qwen_eval.suites import SUITES_DIR, load_suite
from qwen_eval.tasks.hidden import DEPTHS
from qwen_eval.tasks.hidden.sets import GENERATED, text
from qwen_eval.tasks.scorers import find_scorer
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.taskspec import TASKS_DIR, find_task
from qwen_eval.types import (
    CountRequest,
    Decoding,
    GenerateRequest,
    Hidden,
    Item,
    Prompt,
    Response,
    Score,
    Window,
)
from tests.cli.command import qwen_eval
from tests.harness.toys import item

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mirror from the environment."""
    monkeypatch.delenv("QWEN_EVAL_DATA", raising=False)


def items(task: str, recipe: str, mirror: Path | None = None) -> list[Item]:
    data = open_data(find_task(task)[0], mirror)
    renderer = Renderer(data, recipe)
    return [renderer.render(sample) for sample in data.samples()]


def asked(one: Item, count: Callable[[str], int], how: str = "") -> tuple[str, Score]:
    """The prompt that the solver builds where texts have so many tokens, and its score. `how`: what
    the counting says of itself."""
    solver = SOLVERS["needle"](one)
    request, prompt = next(solver), ""
    try:
        while True:
            if isinstance(request, CountRequest):
                counts = tuple(map(count, request.texts))
                request = solver.send(Response(token_counts=counts, text=how))
            else:
                assert isinstance(request, GenerateRequest)
                prompt = request.prompt.full_text
                request = solver.send(Response(text="?", finish_reason="length"))
    except StopIteration as end:
        return prompt, end.value


# --- the sets -----------------------------------------------------------------------------------


def rows(task: str) -> list[dict[str, Any]]:
    return list(read_jsonl(TASKS_DIR / task / "data.jsonl"))


@pytest.mark.parametrize("task", GENERATED)
def test_the_program_makes_the_same_bytes_again(task: str) -> None:
    assert text(task).encode() == (TASKS_DIR / task / "data.jsonl").read_bytes()


@pytest.mark.parametrize("task", GENERATED)
def test_every_needle_is_hidden_at_every_depth(task: str) -> None:
    found = rows(task)
    for depth in DEPTHS:
        here = [{k: v for k, v in row.items() if k != "depth"} for row in found]
        there = [row for row, of in zip(here, found, strict=True) if of["depth"] == depth]
        assert len(there) == len(found) / 5 >= 10
        assert len({json.dumps(row) for row in there}) == len(there)
    spec, _ = find_task(task)
    assert [spec.recipes[str(n)].length for n in LENGTHS] == list(LENGTHS)
    assert spec.recipes["strict"] == spec.recipes["4096"]
    suite = load_suite(SUITES_DIR / f"{task.partition('_')[0]}.yaml").tasks
    assert {f"{task}@{n}" for n in LENGTHS} <= set(suite)


@pytest.mark.parametrize("task", ["passkey_en", "passkey_zh"])
def test_keys_have_five_digits(task: str) -> None:
    assert all(re.fullmatch("[1-9][0-9]{4}", row["key"]) for row in rows(task))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_answer_stands_in_its_needle_alone(language: str) -> None:
    found = [row for row in rows(f"needle_{language}") if row["depth"] == 0]
    for row in found:
        assert [row["answer"] in other["needle"] for other in found].count(True) == 1
        assert row["answer"] in row["needle"]
        assert not any(row["answer"] in other["question"] for other in found)
    sample = [row["text"] for row in rows(f"tiny_bits_{language}")]
    assert not any(row["answer"] in text for row in found for text in sample)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_book_tells_an_answer(mirror: Path, language: str) -> None:
    path = mirror / "longdoc" / f"{language}.jsonl.gz"
    books = [row["text"].casefold() for row in read_jsonl(path)]
    for answer in {row["answer"].casefold() for row in rows(f"needle_{language}")}:
        assert not any(answer in book for book in books)


# --- the prompt ---------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["1024", "4096"])
@pytest.mark.parametrize("task", GENERATED)
def test_a_prompt_fills_its_length_and_hides_where_it_says(task: str, recipe: str) -> None:
    tokenizer = load_tokenizer(bundled.folder("tiny"))
    length = int(recipe)
    for one in items(task, recipe)[3:18:3]:  # every depth once
        assert one.hidden is not None
        prompt, score = asked(one, lambda text: len(tokenizer.encode(text)))
        tokens = len(tokenizer.encode(prompt))
        assert 0.97 * length < tokens < tokens + one.decoding.max_tokens + 1 <= length
        assert score.detail["prompt_tokens"] == tokens
        offset, needle = score.detail["offset"], one.hidden.needle
        assert prompt[offset:].startswith(needle)
        assert prompt.count(needle) == 1
        assert prompt.startswith(one.prompt.prefix)
        assert prompt.endswith(one.prompt.text)
        rest = prompt.replace(needle, "")
        hay = rest.removeprefix(one.prompt.prefix).removesuffix(one.prompt.text)
        assert one.hidden.haystack.startswith(hay)
        at = offset - len(one.prompt.prefix)
        assert score.detail["depth"] == pytest.approx(at / len(hay))
        assert hay[:at].rstrip()[-1:] in {"", *'.!?。！？；"”’)」#'} or at == len(hay)
        assert abs(at / len(hay) - one.hidden.depth) < 0.15
        if task.startswith("passkey"):
            assert abs(at - one.hidden.depth * len(hay)) <= 30, "half of the longest sentence"


@given(st.data())
def test_whatever_a_token_is_the_prompt_fits_and_is_full(data: st.DataObject) -> None:
    """Tokens of one to six letters, counted over the whole text."""
    size, length = data.draw(st.integers(1, 6)), data.draw(st.integers(100, 400))
    words = data.draw(st.lists(st.sampled_from(["a", "word.", "of", "many!", "\n"]), min_size=1))
    haystack = (" ".join(words) + " ") * (8 * length // len(words))
    hidden = Hidden("HIDDEN HERE. ", haystack, data.draw(st.floats(0, 1)))
    one = item(1, prompt=Prompt("Ask?", "Read. "), hidden=hidden, window=Window(length),
               scorer="inclusion", target="x", decoding=Decoding(max_tokens=10))  # fmt: skip
    prompt, score = asked(one, lambda text: -(-len(text) // size))
    room = length - 11
    assert room - 4 - 7 <= score.detail["prompt_tokens"] == -(-len(prompt) // size) <= room
    assert prompt.count("HIDDEN HERE. ") == 1


def test_where_nothing_fits_it_is_an_error() -> None:
    hidden, decoding = Hidden("N. ", "a b c. " * 99, 0.5), Decoding(max_tokens=8)
    one = item(1, prompt=Prompt("Ask?"), hidden=hidden, window=Window(20), decoding=decoding)
    score = replay(SOLVERS["needle"](one), [Response(token_counts=(13,))])
    said = "solver: ValueError: needle and question take 13 tokens, there is room for 11"
    assert (score.status, score.detail["error"]) == ("error", said)


def test_without_a_tokenizer_it_says_how_tokens_were_counted() -> None:
    (one, *_) = items("passkey_en", "1024")
    for how, told in (("estimated", {"tokens_are": "estimated"}), ("", {})):
        _, score = asked(one, lambda text: len(text) // 4, how)
        rest = {"prompt_tokens", "depth", "offset"}
        assert {k: v for k, v in score.detail.items() if k not in rest} == told


def test_the_haystack_is_the_mirrors_or_a_sample(tmp_path: Path) -> None:
    spec, _ = find_task("needle_en")
    own, passkey = open_data(spec, None), open_data(find_task("passkey_en")[0], tmp_path)
    assert (own.kind, passkey.kind) == ("sample", "own")
    (tmp_path / "longdoc").mkdir()
    books = [f"Book {n} is here. " * 9 for n in range(3)]
    path = tmp_path / "longdoc" / "en.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps({"text": book}) + "\n" for book in books)
    data = open_data(spec, tmp_path)
    assert data.kind == "mirror"
    assert data.where("test") == "needle_en/data.jsonl"
    assert data.rows("test") == own.rows("test")
    assert data.digest() != own.digest()
    found = [one.hidden for one in items("needle_en", "1024", tmp_path)]
    assert len({one.haystack for one in found if one}) == 3, "needles begin in different books"
    for one in found:
        assert one is not None
        assert len(one.haystack) == 8 * 1024
        assert all(book in one.haystack for book in books)
    by_needle = {(one.needle, one.haystack) for one in found if one}
    assert len(by_needle) == 12, "a needle lies in the same text at every depth"


def test_equal_questions_in_other_texts_are_other_prompts(tmp_path: Path) -> None:
    asked_here = items("needle_en", "1024")
    other = [*items("needle_en", "1024")]
    assert prompts_digest(asked_here) == prompts_digest(other)
    assert prompts_digest(asked_here) != prompts_digest(items("needle_en", "2048"))


# --- the reply ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scorer", "reply", "target", "right"),
    [
        ("first_number", " 48213. Remember it", "48213", True),
        ("first_number", "４８２１３", "48213", True),
        ("first_number", "是48213。", "48213", True),
        ("first_number", "1 or 48213", "48213", False),
        ("first_number", "482131", "48213", False),
        ("first_number", "48 213", "48213", False),
        ("first_number", "none", "48213", False),
        ("inclusion", " It is a  Brass\nTRUMPET, I think.", "brass trumpet", True),
        ("inclusion", "brass trumpets", "brass trumpet", False),
        ("inclusion", "a trumpet of brass", "brass trumpet", False),
        ("inclusion", "藏着一支铜喇叭。", "铜喇叭", True),
        ("inclusion", "铜 喇叭", "铜喇叭", True),
        ("inclusion", "喇叭", "铜喇叭", False),
        ("inclusion", "", "铜喇叭", False),
    ],
)
def test_what_was_found_is_read(scorer: str, reply: str, target: str, right: bool) -> None:
    score = find_scorer(scorer)(reply, target, "accuracy")
    assert (score.values, score.status) == ({"accuracy": float(right)}, "scored")


@pytest.mark.parametrize(("model", "value"), [("oracle", 1.0), ("random", 0.0)])
@pytest.mark.parametrize("task", GENERATED)
def test_the_mock_models_are_right_and_wrong(task: str, model: str, value: float) -> None:
    mock = open_backend("mock", model, BackendOptions())
    done = list(Runner(mock, SOLVERS["needle"]).run(items(task, "1024")))
    assert len(done) == len(rows(task))
    assert {one.score.values["accuracy"] for one in done} == {value}
    assert Counter(one.item.sample.group for one in done) == dict.fromkeys(
        map(str, DEPTHS), len(done) // 5
    )


def test_a_run_has_a_row_for_every_depth_and_can_be_scored_again(tmp_path: Path) -> None:
    words = ("run", "--tasks", "passkey_en@1024,needle_zh@1024", "--model", "mock:oracle")
    done = qwen_eval(*words, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "needle_zh@1024: SAMPLE" in done.stdout
    tasks = json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"]
    for row in tasks.values():
        assert sorted(row["groups"], key=int) == [str(depth) for depth in DEPTHS]
        assert {one["estimate"] for one in row["groups"].values()} == {1.0}
    assert max(map(len, (tmp_path / "run" / "samples.jsonl").read_text().splitlines())) < 1500
    done = qwen_eval("rescore", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["tasks"]
    assert found["passkey_en@1024"]["scorers"]["first_number"]["estimate"] == 1.0
    assert found["needle_zh@1024"]["scorers"]["inclusion"]["estimate"] == 1.0


@pytest.mark.slow
def test_the_bundled_model_is_asked_at_4096(tmp_path: Path) -> None:
    done = qwen_eval(
        *("run", "--tasks", "passkey_en,passkey_zh,needle_en", "--model", "tiny", "--limit", 1),
        *("--dtype", "float32", "--out", "run"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert 0.97 * 4096 < record["responses"][-1]["prompt_tokens"] <= 4096 - 12
        assert record["detail"]["prompt_tokens"] == record["responses"][-1]["prompt_tokens"]
    for row in json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"].values():
        assert row["invalid"] == [], "a reply that goes on is no fault"
        assert row["counts"]["prompts_truncated"] == 0
