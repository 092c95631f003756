"""The sets of the `tiny` suite: well formed, balanced, made by their programs, and right."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.fileio import read_jsonl
from qwen_eval.suites import SUITES_DIR, load_suite
from qwen_eval.tasks.tiny import GENERATED, text
from qwen_eval.tasks.tiny.arithmetic import DAYS, HAN, LETTERS, MONTHS, WORDS
from qwen_eval.taskspec import TASKS_DIR, find_task
from tests.cli.command import qwen_eval

SUITE = load_suite(SUITES_DIR / "tiny.yaml").tasks
BITS = [name for name in SUITE if name.startswith("tiny_bits")]
CHOICES = [name for name in SUITE if name not in BITS]


def rows(name: str) -> list[dict[str, Any]]:
    return list(read_jsonl(TASKS_DIR / name / "data.jsonl"))


def test_the_suite_is_all_tasks_of_its_name() -> None:
    assert sorted(SUITE) == sorted(path.parent.name for path in TASKS_DIR.glob("tiny_*/task.yaml"))
    for name in SUITE:
        assert len((TASKS_DIR / name / "task.yaml").read_text().splitlines()) <= 40


@pytest.mark.parametrize("name", GENERATED)
def test_the_program_makes_the_same_bytes_again(name: str) -> None:
    assert text(name).encode() == (TASKS_DIR / name / "data.jsonl").read_bytes()


@pytest.mark.parametrize("name", CHOICES)
def test_options_are_distinct_and_the_right_one_stands_anywhere(name: str) -> None:
    found = rows(name)
    assert 140 <= len(found) <= 400
    options = len(found[0]["choices"])
    for row in found:
        assert len(row["choices"]) == len(set(row["choices"])) == options
        assert row["text"] == row["text"].strip(" ")
    places = Counter(row["answer"] for row in found)
    assert all(abs(places[i] - len(found) / options) <= len(found) / 100 for i in range(options))


@pytest.mark.parametrize("name", SUITE)
def test_nothing_is_asked_twice(name: str) -> None:
    asked = [
        (row["text"], row["choices"][row["answer"]] if "choices" in row else "")
        for row in rows(name)
    ]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("name", ["tiny_pairs", "tiny_pairs_zh"])
def test_no_wrong_sentence_is_a_right_one_elsewhere(name: str) -> None:
    right = {row["choices"][row["answer"]] for row in rows(name)}
    wrong = {row["choices"][1 - row["answer"]] for row in rows(name)}
    assert not right & wrong


def test_sums_and_sequences_go_on_as_they_must() -> None:
    names = [WORDS, HAN, DAYS, MONTHS, LETTERS]
    for row in rows("tiny_arithmetic"):
        answer = row["choices"][row["answer"]].strip().rstrip(",")
        if row["kind"] in ("sum", "difference"):
            expression = row["text"].splitlines()[-1].removesuffix(" =")
            assert re.fullmatch(r"\d+ [+-] \d+", expression)
            assert eval(expression) == int(answer), row
            continue
        seen = [part.strip() for part in re.split("[,、]", row["text"]) if part.strip()]
        if row["kind"] == "counting in digits":
            assert int(answer) - int(seen[-1]) == int(seen[1]) - int(seen[0])
        else:
            (way,) = [list(way) for way in names if seen[0] in way]
            start = way.index(seen[0])
            assert way[start : start + len(seen) + 1] == [*seen, answer]


def parses(program: str) -> bool:
    try:
        ast.parse(program)
    except SyntaxError:
        return False
    return True


def test_only_the_right_brackets_close() -> None:
    for row in rows("tiny_brackets"):
        for place, choice in enumerate(row["choices"]):
            whole = row["text"] + choice
            if row["kind"] == "Python":
                assert parses(whole) is (place == row["answer"]), whole
            else:
                try:
                    json.loads(whole)
                    closed = True
                except ValueError:
                    closed = False
                assert closed is (place == row["answer"]), whole


def test_only_the_right_line_goes_on_in_python() -> None:
    """Blocks are one step of four further in; everything else is a matter of syntax alone."""
    for row in rows("tiny_indentation"):
        for place, choice in enumerate(row["choices"]):
            level = len(choice) - len(choice.lstrip(" "))
            opens = choice.rstrip().endswith(":")
            body = " " * (level + 4) + "pass\n" if opens else ""
            program = row["text"] + choice + body
            before = row["text"].splitlines()[-1]
            allowed = parses(program)
            if before.endswith(":"):
                allowed &= level == len(before) - len(before.lstrip(" ")) + 4
            assert allowed is (place == row["answer"]), program


@pytest.mark.parametrize("name", BITS)
def test_texts_are_of_some_length_and_end_in_a_line(name: str) -> None:
    texts = [row["text"] for row in rows(name)]
    assert len(texts) == 40
    sizes = [len(text.encode()) for text in texts]
    assert sum(sizes) > 15_000
    assert max(sizes) < 1200
    assert all(text.endswith("\n") and text.strip() for text in texts)
    if name == "tiny_bits_code":
        assert all(parses(text) for text in texts)


@pytest.mark.parametrize("name", [name for name in SUITE if name.endswith("zh")])
def test_chinese_is_in_simplified_characters(name: str) -> None:
    whole = "".join(json.dumps(row, ensure_ascii=False) for row in rows(name))
    assert not set(whole) & set(
        "們國學書車馬門問說話語讀買賣長東風飛魚鳥電會來對時後點為與這個兒愛開關聽寫"
    )


@pytest.mark.parametrize("name", SUITE)
def test_a_set_of_our_own_says_so(name: str) -> None:
    spec, recipe = find_task(name)
    assert spec.licence == "Apache-2.0"
    assert spec.splits["test"].own == "data.jsonl"
    assert "log-probabilities" in spec.recipes[recipe].source or name in BITS


@pytest.fixture(scope="module")
def mocked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The metrics of both mocks over the whole suite, with a data mirror that has none of it."""
    found = {}
    for mode in ("oracle", "random"):
        out = tmp_path_factory.mktemp("mocks") / mode
        folder = tmp_path_factory.mktemp("empty")
        done = qwen_eval(
            *("run", "--tasks", "tiny", "--model", f"mock:{mode}", "--out", out, "--data", folder),
            "--json",
        )
        assert done.returncode == 0, done.stderr
        assert "SAMPLE" not in done.stderr
        found[mode] = json.loads(done.stdout.splitlines()[-1])["tasks"]
    return found


@pytest.mark.parametrize("name", CHOICES)
def test_the_oracle_is_always_right_and_the_guesser_is_at_chance(
    mocked: dict[str, dict[str, Any]], name: str
) -> None:
    from scipy.stats import binom

    oracle, guesser = (mocked[mode][f"{name}@strict"] for mode in ("oracle", "random"))
    assert oracle["overall"]["estimate"] == 1.0
    assert oracle["data"] == "own"
    n, chance = oracle["overall"]["n"], 1 / len(rows(name)[0]["choices"])
    low, high = binom.interval(0.999, n, chance)
    assert low <= guesser["overall"]["estimate"] * n <= high


@pytest.mark.parametrize("name", BITS)
def test_the_mocks_need_no_bits_and_eight_a_byte(
    mocked: dict[str, dict[str, Any]], name: str
) -> None:
    assert mocked["oracle"][f"{name}@strict"]["overall"]["estimate"] == 0.0
    found = mocked["random"][f"{name}@strict"]["overall"]
    for key in ("estimate", "low", "high"):
        assert found[key] == pytest.approx(8.0, abs=1e-9)


def above_chance(names: list[str], *options: object) -> None:
    done = qwen_eval("run", "--tasks", ",".join(names), *options, "--json")
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout.splitlines()[-1])["tasks"]
    for name in names:
        low = tasks[f"{name}@strict"]["overall"]["low"]
        assert low > 1 / len(rows(name)[0]["choices"]), (name, low)


@pytest.mark.slow
@pytest.mark.smollm2
def test_a_real_model_is_above_chance_in_english(smollm2: Path, tmp_path: Path) -> None:
    names = ["tiny_cloze_en", "tiny_pairs", "tiny_brackets", "tiny_indentation", "tiny_arithmetic"]
    above_chance(names, "--model", "smollm2", "--limit", 60, "--out", tmp_path / "run")


@pytest.mark.slow
def test_the_bundled_model_is_above_chance(tmp_path: Path) -> None:
    above_chance(CHOICES, "--model", "tiny", "--out", tmp_path / "run")
