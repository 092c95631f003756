"""What vocabularies are learnt from and measured on: files, counted pieces, tokens per byte."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
import regex

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import QWEN_PATTERN
from qwen_eval.train.documents import BLOCK_BYTES, Document, documents, size, text_files
from qwen_eval.train.tokenizer.compression import counter, measure
from qwen_eval.train.tokenizer.pieces import LONGEST_PIECE, count_pieces
from qwen_eval.train.tokenizer.vocabulary import BYTES, write_vocabulary


def texts(*words: str) -> list[Document]:
    return [Document("", word, "here") for word in words]


# --- files ----------------------------------------------------------------------------------------


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    row = {"text": "a", "source": "peps/pep-0001#2", "lang": "en"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n" + '{"text": "b", "source": "wiki#3"}')
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "c"}\n'))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.txt").write_text("d\ne")
    (tmp_path / "d.csv").write_text("not read")
    found = list(documents(text_files([tmp_path, tmp_path / "a.jsonl"])))
    assert len({d.id for d in found}) == 4
    assert [(d.text, d.source, d.lang) for d in found] == [
        ("a", "peps", "en"),
        ("b", "wiki", ""),
        ("c", "b", ""),
        ("d\ne", "c", ""),
    ]


def test_a_long_text_comes_in_blocks_of_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    text = "".join(f"{i} 你好\n" for i in range(300_000))
    path.write_text(text)
    blocks = [d.text for d in documents([path])]
    assert "".join(blocks) == text
    assert len(blocks) > 2
    assert all(block.endswith("\n") for block in blocks)
    assert max(len(block.encode()) for block in blocks) < 1.1 * BLOCK_BYTES


def test_the_size_of_a_compressed_file_is_that_of_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 12345))
    assert size(path) == 12345


def test_a_limit_takes_of_every_file_its_share(tmp_path: Path) -> None:
    for name, count in (("small", 100), ("large", 300)):
        rows = "".join(json.dumps({"text": "x" * 50}) + "\n" for _ in range(count))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    found = Counter(d.source for d in documents(text_files([tmp_path]), 4000))
    assert found == {"small": 20, "large": 60}


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "a.jsonl, row 2: text is missing or no text"),
        ("a.jsonl", b"\x00\xff\xfe\n", "a.jsonl, line 1: not JSON"),
        ("a.txt", b"fine\n" + b"\xff\xfe\x00", "a.txt, byte 5: not UTF-8"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz, line 1"),
        ("a.bin", b"x", "of no known kind; give .jsonl, .jsonl.gz, .txt"),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(documents(text_files([tmp_path / name])))
    assert named in str(error.value)


# --- counting -------------------------------------------------------------------------------------


def test_counts_are_those_of_a_counter(mirror: Path) -> None:
    found = list(documents(text_files([mirror / "pretrain"]), 500_000))
    counted = count_pieces(found)
    # Nothing in this sample is changed by NFC.
    assert counted.counts == Counter(p for d in found for p in regex.findall(QWEN_PATTERN, d.text))
    assert counted.bytes == sum(len(d.text.encode()) for d in found)
    assert counted.occurrences == sum(counted.counts.values())
    assert (counted.undercount, counted.forgotten) == (0, 0)


def test_composed_and_decomposed_letters_are_one_piece() -> None:
    assert count_pieces(texts("caf\u00e9", "cafe\u0301")).counts == {"caf\u00e9": 2}


def test_half_a_surrogate_pair_is_counted_as_the_tokenizer_reads_it() -> None:
    assert count_pieces(texts("a\ud83eb")).counts == {"a": 1, "\ufffdb": 1}


def test_a_weight_counts_a_document_several_times() -> None:
    rows = [Document("", "x y", "a"), Document("", "x", "b")]
    assert count_pieces(rows, {"b": 5}).counts == {"x": 6, " y": 1}
    with pytest.raises(UserError, match="--weights c: no document has this source; there are a, b"):
        count_pieces(rows, {"c": 5})


def test_the_digest_depends_on_the_documents_and_not_on_their_order() -> None:
    digest = count_pieces(texts("a", "b", "b")).digest
    assert digest == count_pieces(texts("b", "a", "b")).digest
    assert digest != count_pieces(texts("a", "b")).digest
    total = sum(int(hashlib.sha256(t).hexdigest(), 16) for t in (b"a", b"b", b"b"))
    assert int(digest, 16) == total % 2**256


def test_what_is_forgotten_keeps_the_promised_bound() -> None:
    """Zipf's law over words, ten times as many as may be held."""
    rng = random.Random(1)
    words = [f"w{''.join(rng.choices('abcdefgh', k=6))}" for _ in range(3000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    stream = texts(*(" ".join(rng.choices(words, weights, k=20)) for _ in range(2000)))
    weight = {"here": 7}
    exact, bounded = count_pieces(stream, weight), count_pieces(stream, weight, most=300)
    assert bounded.forgotten > 0
    assert len(bounded.counts) <= 300 + 20
    assert bounded.occurrences == exact.occurrences
    assert bounded.occurrences == sum(bounded.counts.values()) + bounded.forgotten
    for piece, count in exact.counts.items():
        assert 0 <= count - bounded.counts.get(piece, 0) <= bounded.undercount
    assert bounded.undercount < max(exact.counts.values()) / 4, "a bound that says nothing"


def test_an_endless_word_is_counted_in_parts() -> None:
    counted = count_pieces(texts("x" * (2 * LONGEST_PIECE + 7)))
    assert counted.counts == {"x" * LONGEST_PIECE: 2, "x" * 7: 1}


@pytest.mark.parametrize("words", [(), ("",), ("", "")])
def test_no_text_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--text: no text in it"):
        count_pieces(texts(*words))


# --- compression ----------------------------------------------------------------------------------


def letters(path: Path) -> Path:
    """A tokenizer.json whose tokens are single characters, with a frame around every text."""
    from tokenizers import Tokenizer, models, processors

    rust = Tokenizer(models.BPE({"?": 0, "a": 1, "<s>": 2}, [], unk_token="?"))
    rust.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 2)])
    rust.enable_truncation(5)
    rust.save(str(path))
    return path


def test_tokens_per_byte_and_ratio(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [*BYTES, b"aa", b"aaaa"], {})
    counts = {"ours": counter(tmp_path), "json": counter(letters(tmp_path / "letters.json"))}
    read = (("aaaaaa", "en"), ("好", "zh"), ("aa", "en"), ("", "de"))
    rows = [Document("", text, "x", lang) for text, lang in read]
    found = measure(rows, counts, lambda d: d.lang)
    assert list(found) == ["en", "zh"]
    en, zh = found["en"], found["zh"]
    assert (en.documents, en.bytes, en.tokens["ours"]) == (2, 8, 3)
    assert zh.per_byte("ours") == 1.0
    assert en.tokens["json"] == 8
    assert en.ratio("ours", "json") == 3 / 8


def test_control_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, BYTES, {})
    text = "<|endoftext|>"
    assert counter(tmp_path)(text) == len(text)


@pytest.mark.parametrize("name", ["none", "broken.json", "broken.tiktoken"])
def test_a_vocabulary_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    for broken in ("broken.json", "broken.tiktoken"):
        (tmp_path / broken).write_text("{")
    with pytest.raises(UserError, match=name):
        counter(tmp_path / name)
