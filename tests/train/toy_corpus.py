"""A small corpus with everything in it that a step drops, and the recipe for it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.train.corpora import chinese, edited, english

PARAGRAPH = (
    "The river rises in the hills north of the town and runs south for ninety miles. It is wide "
    "and slow, and the barges that carry grain have used it for three hundred years. "
)
QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
)
SHORT = "They were all of the opinion that this was too short."
FOREIGN = "Der Fluss entspringt in den Hügeln nördlich der Stadt und fließt sehr langsam. " * 5
RECIPE = """\
seed: 3
sources:
  en: {files: ["en*.jsonl"], rules: words, repeat: 1.5}
  zh: {files: [zh.jsonl], lang: zh}
  files: {files: ["raw/*"], format: html}
instructions:
  asked: {files: [asked.jsonl], format: instruction, repeat: 2}
languages: {keep: [en, zh], min: 0.5}
fuzzy: {shingle: 5, bands: 24, rows: 5, threshold: 0.7}
rules:
  words: {words: {min: 30}}
  zh: {han_share: {min: 0.5}}
decontaminate: {against: [test.jsonl]}
pack: {length: 64, shard_sequences: 100}
"""


def write_corpus(folder: Path) -> Path:
    """Write the corpus below `folder`; returns the recipe's path."""
    rng = random.Random(9)
    (folder / "raw").mkdir(parents=True)
    for part in range(3):
        # Made-up words have no language: the sentences before them, a thousand letters, have.
        texts = [f"{PARAGRAPH * 6}\n{english(rng, 240)}" for _ in range(40)]
        texts += [
            texts[3],
            texts[4].upper(),
            edited(rng, texts[5], 0.01),
            "",
            SHORT,
            FOREIGN,
        ]
        rows(folder / f"en{part}.jsonl", [{"text": text} for text in texts])
    signs = [chinese(rng, 200) for _ in range(40)]
    rows(
        folder / "zh.jsonl", [{"text": t} for t in [*signs, signs[0], edited(rng, signs[1], 0.01)]]
    )
    body = "".join(f"<p>{PARAGRAPH}{i}</p>" for i in range(4))
    (folder / "raw" / "a.html").write_text(f"<html><body><article>{body}</article></body></html>")
    (folder / "raw" / "b.txt").write_bytes((chinese(rng, 300) + "你好，世界。").encode("gb18030"))
    (folder / "raw" / "c.txt").write_bytes(bytes(range(256)) * 8)
    (folder / "raw" / "d.txt").write_bytes(b"")
    (folder / "raw" / "e.html").write_bytes(b"<html><body></body></html>")
    rows(
        folder / "asked.jsonl",
        [{"instruction": f"Say {i}: {english(rng, 20)}", "output": str(i)} for i in range(10)]
        + [{"instruction": f"Solve this. {QUESTION}", "output": "72"}],
    )
    rows(folder / "test.jsonl", [{"question": QUESTION, "answer": "72"}])
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


def rows(path: Path, of: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in of))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
