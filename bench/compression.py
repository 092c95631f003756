"""Bits per byte of models on documents that were held out of training, beside xz's.

    python -m bench.compression --heldout corpus/5-heldout/dropped --train corpus/5-heldout/kept \
        --model tiny --model smollm2 --kilobytes 100 --json

A document is read in windows of the model's context, half of each already seen, so that all but the
first tokens have at least half a context before them; a document's first token is asked after the
end-of-text token. xz is `xz -9e`: over the whole set, and over the first `--kilobytes` of it, which
is what the models with a limit read. Primed, xz first reads 50 MB of training text, the set's own
source last and so nearest; its bytes are what the set adds.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import native
from qwen_eval.cli.names import resolve
from qwen_eval.fileio import read_jsonl
from qwen_eval.model.engine import EngineResult, ScoreContinuations, ScoreTokens

PRIME_BYTES = 50_000_000


def main() -> None:
    """A table of sources and methods."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument(
        "--kilobytes", type=float, help="of each source, for all but the first model"
    )
    parser.add_argument("--source", action="append")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    texts = by_source(options.heldout)
    if options.source:
        texts = {name: texts[name] for name in options.source}
    part = {name: first(found, options.kilobytes) for name, found in texts.items()}
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for name, found in texts.items():
        rows[name] |= {"documents": len(found), "bytes": sum(map(size, found))}
        rows[name]["xz"] = xz(found)
        if options.kilobytes:
            rows[name] |= {"part bytes": sum(map(size, part[name])), "xz, part": xz(part[name])}
        if options.train:
            rows[name]["xz, primed"] = primed_xz(found, options.train, name)
        show(name, rows[name])
    for number, model in enumerate(options.model):
        reader = Reader.open(model, options.dtype)
        for name, found in texts.items():
            if number == 0:
                rows[name][model] = reader.bits_per_byte(found)
            if options.kilobytes:
                rows[name][f"{model}, part"] = reader.bits_per_byte(part[name])
            show(name, rows[name])
    if options.json:
        print(json.dumps(rows))


def show(name: str, row: dict[str, float]) -> None:
    figures = [f"{k} {v:,.0f}" if v > 100 else f"{k} {v:.3f}" for k, v in row.items()]
    print(f"{name:16}" + "  ".join(figures), flush=True)


def by_source(folder: Path) -> dict[str, list[str]]:
    """The documents of all shards, by their source."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl.gz")):
        for row in read_jsonl(path):
            found[row["source"]].append(row["text"])
    return dict(found)


def size(text: str) -> int:
    return len(text.encode())


def first(texts: list[str], kilobytes: float | None) -> list[str]:
    """Whole documents from the first on, until so much is there."""
    found: list[str] = []
    for text in texts:
        if kilobytes is None or sum(map(size, found)) >= 1000 * kilobytes:
            break
        found.append(text)
    return found


def xz(texts: list[str]) -> float:
    data = "\n".join(texts).encode()
    return 8 * len(compressed(data)) / len(data)


def compressed(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def primed_xz(texts: list[str], train: Path, source: str) -> float:
    """What the set adds to training text that xz has read before it."""
    known = by_source(train)
    before: list[bytes] = []
    room = PRIME_BYTES
    for name in sorted(known, key=lambda name: name != source):
        block = "\n".join(known[name]).encode()[:room]
        before.insert(0, block)
        room -= len(block)
    data, prefix = "\n".join(texts).encode(), b"\n".join(before)
    return 8 * (len(compressed(prefix + b"\n" + data)) - len(compressed(prefix))) / len(data)


@dataclass
class Reader:
    """A model with its engine, which reads whole documents."""

    backend: Any

    @classmethod
    def open(cls, model: str, dtype: str) -> Reader:
        """By its name, as --model takes it."""
        return cls(native(Path(resolve(model).target), batch=16, dtype=dtype))

    def bits_per_byte(self, texts: list[str]) -> float:
        """Of all texts together."""
        requests = [request for text in texts for request in self._windows(text)]
        nats = sum(map(nats_of, self.backend.engine.run(requests)))
        return nats / math.log(2) / sum(map(size, texts))

    def _windows(self, text: str) -> Iterator[ScoreTokens | ScoreContinuations]:
        tokenizer = self.backend.tokenizer
        context = min(self.backend.engine.config.max_length, 1024)
        ids = (tokenizer.start_id, *tokenizer.encode(text))
        yield ScoreTokens(ids[:context])
        half = context // 2
        for start in range(context, len(ids), half):
            yield ScoreContinuations(ids[start - half : start], (ids[start : start + half],), None)


def nats_of(result: EngineResult) -> float:
    assert isinstance(result, tuple)
    total = 0.0
    for score in result:
        total -= score if isinstance(score, float) else math.fsum(score.logprobs)
    return total


if __name__ == "__main__":
    main()
