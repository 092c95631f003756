"""The mock backend: right, random or by script, and the same in whatever order it is asked."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from qwen_eval.backends.base import Backend, BackendOptions, open_backend
from qwen_eval.errors import UserError
from qwen_eval.types import (
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    Message,
    ModelRequest,
    PerplexityRequest,
    Prompt,
    Response,
)


def mock(target: str, seed: int = 0) -> Backend:
    return open_backend("mock", target, BackendOptions(seed=seed))


def ask(backend: Backend, *requests: ModelRequest) -> list[Response]:
    ids = [backend.submit(request) for request in requests]
    answers = dict(backend.step())
    assert sorted(answers) == sorted(ids)
    return [answers[i] for i in ids]


def choose(number: int, right: int = 0) -> LoglikelihoodRequest:
    return LoglikelihoodRequest(Prompt(f"{number}?"), (" A", " B", " C", " D"), reference=right)


def picked(response: Response) -> int:
    return max(range(len(response.logprobs)), key=response.logprobs.__getitem__)


def test_the_oracle_is_right() -> None:
    answers = ask(mock("oracle"), *(choose(i, i % 4) for i in range(8)))
    assert [picked(answer) for answer in answers] == [i % 4 for i in range(8)]
    assert math.fsum(map(math.exp, answers[0].logprobs)) == pytest.approx(1.0)
    written = ask(mock("oracle"), GenerateRequest(Prompt("2+2?"), reference="It is 4."))
    assert written[0].text == "It is 4."


def test_random_is_a_function_of_seed_and_prompt_alone() -> None:
    requests = [choose(i) for i in range(400)]
    first = [picked(answer) for answer in ask(mock("random", 1), *requests)]
    backwards = [picked(answer) for answer in ask(mock("random", 1), *requests[::-1])]
    assert first == backwards[::-1]
    assert first != [picked(answer) for answer in ask(mock("random", 2), *requests)]
    for letter in range(4):
        assert 70 <= first.count(letter) <= 130, "each option about a hundred times of 400"


def script(folder: Path, *rules: dict) -> str:
    path = folder / "script.jsonl"
    path.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    return str(path)


def test_a_script_answers_by_rule_and_turn(tmp_path: Path) -> None:
    backend = mock(
        script(
            tmp_path,
            {"contains": "sum", "text": ["one", "two"]},
            {"contains": "pick", "choice": 2},
            {"contains": "down", "error": "timeout"},
            {"text": "anything"},
        )
    )
    texts = [ask(backend, GenerateRequest(Prompt("sum")))[0].text for _ in range(3)]
    assert texts == ["one", "two", "two"]
    assert picked(ask(backend, LoglikelihoodRequest(Prompt("pick"), ("a", "b", "c")))[0]) == 2
    assert ask(backend, GenerateRequest(Prompt("other")))[0].text == "anything"
    assert ask(backend, GenerateRequest(Prompt("down")))[0].error == "timeout"
    assert ask(backend, choose(1))[0].error == "no rule of the script answers this"
    down = LoglikelihoodRequest(Prompt("down"), ("a", "b"))
    assert ask(backend, down)[0].error == "timeout"


def test_a_conversation_is_read_like_a_text(tmp_path: Path) -> None:
    backend = mock(script(tmp_path, {"contains": "user: Hello", "text": "one"}, {"text": "other"}))
    hello, more = Message("user", "Hello"), Message("user", "Good day")
    asked = [GenerateRequest(Prompt(messages=(Message("system", "x"), m))) for m in (hello, more)]
    assert [answer.text for answer in ask(backend, *asked)] == ["one", "other"]
    assert len({answer.text for answer in ask(mock("random"), *asked)}) == 2


@pytest.mark.parametrize("choice", [-1, 4, 9])
def test_a_choice_that_is_none_of_the_options_fails(tmp_path: Path, choice: int) -> None:
    answer = ask(mock(script(tmp_path, {"choice": choice})), choose(1))[0]
    assert answer.error == f"the script chooses {choice} of 0 to 3"
    assert answer.logprobs == ()


def test_stop_strings_cut_like_a_model(tmp_path: Path) -> None:
    backend = mock(script(tmp_path, {"text": "four\n\nQ: five"}))
    request = GenerateRequest(Prompt("?"), Decoding(stop=("Q:", "\n\n")))
    assert ask(backend, request)[0].text == "four"


@pytest.mark.parametrize(("mode", "bits"), [("oracle", 0.0), ("random", 8.0), ("script", 1.5)])
def test_a_text_costs_so_many_bits_a_byte(tmp_path: Path, mode: str, bits: float) -> None:
    backend = mock(script(tmp_path, {"contains": "mer", "bits": 1.5}) if mode == "script" else mode)
    response = ask(backend, PerplexityRequest("la mer, 海"))[0]
    assert -sum(response.logprobs) / math.log(2) == pytest.approx(bits * 11)
    if mode == "script":
        assert (
            ask(backend, PerplexityRequest("sea"))[0].error == "no rule of the script answers this"
        )


def test_sentences_without_a_prompt_are_guessed_one_by_one() -> None:
    pairs = [LoglikelihoodRequest(Prompt(), (f"{i}a", f"{i}b")) for i in range(200)]
    chosen = [picked(answer) for answer in ask(mock("random"), *pairs)]
    assert 60 < sum(chosen) < 140


def test_two_scripts_are_two_models(tmp_path: Path) -> None:
    first = mock(script(tmp_path, {"text": "a"})).info().fingerprint
    assert mock(script(tmp_path, {"text": "b"})).info().fingerprint != first


@pytest.mark.parametrize(
    ("target", "named"), [("nowhere.jsonl", "no such file; also known: oracle, random")]
)
def test_what_is_no_script_is_named(target: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        mock(target)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"answer": "b"}, "a rule has contains and one of text, choice, bits, error"),
        ({"contains": "b"}, "a rule has contains and one of text, choice, bits, error"),
        ({"choice": "b"}, "choice is the number of an option"),
        ({"choice": True}, "choice is the number of an option"),
        ({"bits": -1}, "bits is a number from 0 on"),
        ({"bits": "1"}, "bits is a number from 0 on"),
        ({"text": 5}, "text is a text or a list of texts"),
        ({"text": ["a", None]}, "text is a text or a list of texts"),
        ({"text": []}, "text is an empty list"),
        ({"error": 5}, "contains and error are texts"),
        ({"contains": 5, "text": "a"}, "contains and error are texts"),
    ],
)
def test_a_rule_that_cannot_answer_is_named(tmp_path: Path, rule: dict, said: str) -> None:
    with pytest.raises(UserError, match=rf"script\.jsonl, line 2: {said}"):
        mock(script(tmp_path, {"text": "a"}, rule))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (BackendOptions(context={"window": True}), "--window: mock: models cannot be switched"),
        (BackendOptions(context={"ntk_chunks": False}), "--no-ntk-chunks: mock: models cannot"),
        (BackendOptions(context={"window_sizes": "4,full"}), "--window-sizes 4,full: mock: models"),
        (BackendOptions(context={"yarn": 4.0}), "--yarn 4: mock: models cannot be switched"),
        (BackendOptions(dtype="float32"), "--dtype float32: changes nothing of mock: models"),
        (BackendOptions(device="cuda"), "--device cuda: changes nothing of mock: models"),
        (BackendOptions(max_length=64), "--max-length 64: changes nothing of mock: models"),
    ],
)
def test_flags_that_change_nothing_are_refused(options: BackendOptions, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_backend("mock", "oracle", options)


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(UserError, match="known: native, mock"):
        open_backend("vllm", "x", BackendOptions())
