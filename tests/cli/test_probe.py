"""`qwen-eval data probe` on models of which it is known what they know."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.backends.base import BackendInfo
from qwen_eval.cli import probe
from qwen_eval.errors import InfrastructureError, UserError
from qwen_eval.fileio import read_jsonl
from qwen_eval.memorisation import SEPARATOR
from qwen_eval.types import CountRequest, ModelRequest, PerplexityRequest, Response
from tests.cli.command import qwen_eval, refused

ROWS = 64
NOUNS = ("anchor", "barley", "candle", "drum", "ember", "fiddle", "goblet", "hinge", "ivory", "jig")


def noun(*key: object) -> str:
    return NOUNS[hashlib.sha256(repr(key).encode()).digest()[0] % len(NOUNS)]


def mirror_of(folder: Path, sorted_by_topic: bool = False) -> Path:
    """GSM8K's layout with rows of our own: their words at random, or the same for neighbours."""
    (folder / "gsm8k").mkdir(parents=True)
    with gzip.open(folder / "gsm8k" / "test.jsonl.gz", "wt") as file:
        for n in range(ROWS):
            topic = n // 4 if sorted_by_topic else n
            text = " ".join(noun(topic, i) for i in range(6))
            row = {"question": f"{n}: {text}?", "answer": f"{noun(n)} #### {n}"}
            file.write(json.dumps(row) + "\n")
    return folder


class Model:
    """Words are its tokens. How likely a row is depends, at random, on the one before it; a row
    behind the one that it stands behind in the file is likelier by `bonus` nats."""

    def __init__(self, bonus: float = 0.0, max_length: int = 0, error: str = "") -> None:
        self.bonus, self.max_length, self.error = bonus, max_length, error
        self.ready: list[tuple[int, Response]] = []
        self.asked = 0
        self.closed = False

    def submit(self, request: ModelRequest) -> int:
        self.asked += 1
        self.ready.append((self.asked, self.answer(request)))
        assert len(self.ready) <= 7
        return self.asked

    def answer(self, request: ModelRequest) -> Response:
        if isinstance(request, CountRequest):
            return Response(token_counts=tuple(len(text.split()) for text in request.texts))
        assert isinstance(request, PerplexityRequest)
        if self.error and self.error in request.text:
            return Response(error="out of memory", finish_reason="error")
        logprobs: list[float] = []
        before = ""
        for row in request.text.split(SEPARATOR):
            noise = hashlib.sha256(f"{before}|{row}".encode()).digest()[0] / 256
            number = row.partition(":")[0]
            known = before and int(number) == int(before) + 1
            first = -3.0 - noise + (self.bonus if known else 0.0)
            logprobs += [first, *[-1.0] * (len(row.split()) - 1)]
            before = number
        return Response(logprobs=tuple(logprobs))

    def step(self) -> list[tuple[int, Response]]:
        self.ready.reverse()
        done, self.ready = self.ready[:3], self.ready[3:]
        return done

    def info(self) -> BackendInfo:
        return BackendInfo("toy", max_length=self.max_length, concurrency=7)

    def close(self) -> None:
        self.closed = True


def probed(
    model: Model, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, **options: Any
) -> tuple[dict[str, Any], str]:
    """What --json says of GSM8K, and what a person reads."""
    monkeypatch.setattr(probe, "open_model", lambda *_: model)
    given = {"limit": None, "shuffles": 9, "seed": 0, "dtype": "auto", "device": "auto"}
    given |= {"batch": None, "out": None, "as_json": True} | options
    probe.command(tasks="gsm8k", model="toy", data=data, **given)
    assert model.closed
    said = capsys.readouterr()
    return json.loads(said.out)["tasks"]["gsm8k@strict"], " ".join(said.err.split())


def test_an_order_that_is_known_is_told_from_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = mirror_of(tmp_path)
    found, said = probed(Model(2.0), data, monkeypatch, capsys)
    order = found["order"]
    assert (order["stretches"], order["rows"], order["shuffles"]) == (8, 64, 9)
    assert order["beaten"] == 1.0
    assert order["p"] == pytest.approx(10.0**-8)
    assert order["gain"] > 0
    assert order["p_words"] > 0.05
    assert "seems to KNOW this file" in said
    found, said = probed(Model(0.0), data, monkeypatch, capsys)
    assert found["order"]["p"] > 0.05
    assert 0.2 < found["order"]["beaten"] < 0.8
    assert "no sign that the order is known" in said
    assert "no proof that the set is not" in said


def test_an_order_that_means_something_is_not_called_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = mirror_of(tmp_path, sorted_by_topic=True)
    found, said = probed(Model(2.0), data, monkeypatch, capsys)
    assert found["order"]["p_words"] < 0.001
    assert "says NOTHING here" in said
    assert "KNOW" not in said


def test_min_k_and_perplexity_are_those_of_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = mirror_of(tmp_path), tmp_path / "items.jsonl"
    found, _ = probed(Model(), data, monkeypatch, capsys, out=out)
    items = list(read_jsonl(out))
    assert found["n"] == len(items) == ROWS
    for n, item in enumerate(items):
        # Ten words, of which the first is the least likely: a fifth are two of them.
        text = f"{n}: {' '.join(noun(n, i) for i in range(6))}?\n{noun(n)} #### {n}"
        first = -3.0 - hashlib.sha256(f"|{text}".encode()).digest()[0] / 256
        assert item["tokens"] == len(text.split()) == 10
        assert item["min_k"] == pytest.approx((first - 1) / 2)
        assert item["nats_per_token"] == pytest.approx((9 - first) / 10)
    nats = math.fsum(item["nats_per_token"] for item in items) / ROWS
    assert found["perplexity"] == pytest.approx(math.exp(nats))


def test_a_limit_takes_whole_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = probed(Model(), mirror_of(tmp_path), monkeypatch, capsys, limit=20)
    assert (found["n"], found["order"]["rows"], found["order"]["stretches"]) == (24, 24, 3)


def test_texts_that_do_not_fit_or_fail_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = mirror_of(tmp_path)
    found, said = probed(Model(error="17: "), data, monkeypatch, capsys)
    assert found["failed"] == 1 + 10  # the item, and its stretch in all orders
    assert (found["n"], found["order"]["stretches"]) == (63, 7)
    assert "11 texts could not be read: out of memory" in said
    found, said = probed(Model(max_length=25), data, monkeypatch, capsys)
    assert found["order"] is None
    assert "nothing is known of their order" in said
    with pytest.raises(UserError, match="no item fits the model's context of 8"):
        probed(Model(max_length=9), data, monkeypatch, capsys)
    with pytest.raises(InfrastructureError, match="nothing was read: out of memory"):
        probed(Model(error=" "), data, monkeypatch, capsys)


def test_equal_probabilities_know_nothing(tmp_path: Path) -> None:
    (tmp_path / "script.jsonl").write_text('{"bits": 1.5}\n')
    mirror_of(tmp_path / "data")
    words = ("data", "probe", "--tasks", "gsm8k", "--model", "mock:script.jsonl", "--json")
    done = qwen_eval(*words, "--data", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["tasks"]["gsm8k@strict"]
    assert found["perplexity"] == pytest.approx(2**1.5)
    assert found["min_k"]["estimate"] == pytest.approx(-1.5 * math.log(2))
    assert (found["order"]["p"], found["order"]["beaten"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--tasks", "gsm9k"), "--tasks gsm9k: no task or suite"),
        (("--tasks", "tiny_cloze_en", "--shuffles", "0"), "--shuffles"),
        (("--tasks", "tiny_cloze_en", "--model", "mock:gone"), "mock:gone: no such file"),
        (("--tasks", "tiny_cloze_en", "--out", "gone/a"), "--out gone/a: name a file"),
        (("--tasks", "tiny_cloze_en", "--dtype", "int3"), "--dtype int3: choose one of"),
    ],
)
def test_mistakes_are_named(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    assert reason in refused(qwen_eval("data", "probe", *words, cwd=tmp_path))
