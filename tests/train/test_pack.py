"""What is packed is what was said, in the order and as often as was said."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json
from qwen_eval.train.data.mixture import copies, order, shares
from qwen_eval.train.data.pack import (
    TABLE_TYPE,
    ByteTokenizer,
    PackedCorpus,
    copy_tokenizer,
    open_encoder,
    pack,
    token_type,
    tokenise,
    write_manifest,
)
from qwen_eval.train.data.shards import beside, load_array

PLENTY = 1 << 28


def table(ids: list[int], source: int = 0) -> np.ndarray:
    return np.array([(0, 1, i, source) for i in ids], TABLE_TYPE)


def packed(
    folder: Path, texts: list[list[str]], length: int, shard: int, repeat: float = 1
) -> PackedCorpus:
    """Texts of several shards as a corpus; ids are numbers from 1 on."""
    folder.mkdir(exist_ok=True)
    encoder, stems, number = ByteTokenizer(), [], 0
    for i, part in enumerate(texts):
        stems.append(folder / f"a.{i:05}")
        tokenise(stems[-1], iter((number + j, t, 0) for j, t in enumerate(part, 1)), encoder)
        number += len(part)
    tables = [load_array(beside(stem, ".table.npy")) for stem in stems]
    content = pack(folder, stems, order(tables, [repeat], 7, PLENTY), encoder, length, shard)
    write_manifest(folder, encoder, length, content)
    return PackedCorpus(folder, verify=True)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.text(st.sampled_from("ab中"), max_size=9), max_size=5), max_size=3),
    st.integers(1, 7),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5, 1.0, 2.5]),
)
def test_sequences_are_the_texts_one_after_the_other(
    texts: list[list[str]], length: int, shard: int, repeat: float
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = packed(folder, texts, length, shard, repeat)
        tables = [load_array(folder / f"a.{i:05}.table.npy") for i in range(len(texts))]
        expected: list[int] = []
        begins = []
        for shards, rows in order(tables, [repeat], 7, PLENTY):
            for s, r in zip(shards, rows, strict=True):
                begins.append(len(expected))
                expected += [*texts[s][r].encode(), 256]
        whole = len(expected) // length
        assert len(corpus) == whole
        assert corpus.manifest["left_out_tokens"] == len(expected) - whole * length
        found = [token for i in range(whole) for token in corpus[i].tolist()]
        assert found == expected[: whole * length]
        starts = [i * length + s for i in range(whole) for s in corpus.starts(i).tolist()]
        assert starts == [b for b in begins if b < whole * length]
        with pytest.raises(IndexError):
            corpus[whole]


def test_memory_and_cuts_change_no_order() -> None:
    ids = list(range(1, 400))
    whole = [table(ids)]
    cut = [table(ids[:100]), table([]), table(ids[100:])]

    def seen(tables: list[np.ndarray], memory: int) -> list[int]:
        return [
            int(tables[s]["id"][r])
            for shards, rows in order(tables, [1.7], 1, memory)
            for s, r in zip(shards, rows, strict=True)
        ]

    first = seen(whole, PLENTY)
    assert first == seen(cut, PLENTY) == seen(whole, 2000) == seen(cut, 500)
    counts = Counter(first)
    assert set(counts.values()) == {1, 2}
    assert first != sorted(first)


@given(st.floats(0, 5), st.integers(0, 100))
def test_copies_are_the_repeats_on_the_average(repeat: float, seed: int) -> None:
    n = 4000
    found = copies(np.arange(n, dtype=np.uint64), np.full(n, repeat), seed)
    assert set(found.tolist()) <= {int(repeat), int(repeat) + 1}
    # Four standard errors of a Bernoulli mean.
    assert abs(found.mean() - repeat) <= 4 * 0.5 / n**0.5


def test_the_order_is_a_fair_shuffle() -> None:
    places: Counter[tuple[int, ...]] = Counter()
    for seed in range(600):
        (_, rows), *_ = order([table([5, 6, 7])], [1], seed, PLENTY)
        places[tuple(rows.tolist())] += 1
    assert len(places) == 6
    # Six orders, 100 of each expected: chi-squared at p = 0.0001 is 25.7.
    assert sum((count - 100) ** 2 / 100 for count in places.values()) < 25.7


def test_shares_say_what_is_seen() -> None:
    tables = [np.array([(0, 10, 1, 0), (10, 5, 2, 1)], TABLE_TYPE)]
    assert shares(tables, ["a", "b"], [2, 0], 0) == {
        "a": {"documents": 1, "tokens": 10, "seen_documents": 2, "seen_tokens": 20},
        "b": {"documents": 1, "tokens": 5, "seen_documents": 0, "seen_tokens": 0},
    }


def test_ids_fit_their_type() -> None:
    assert token_type(65536) == "<u2"
    assert token_type(65537) == "<u4"


def test_the_tokenizer_lies_beside_the_shards(tmp_path: Path) -> None:
    source, target = tmp_path / "tokenizer", tmp_path / "packed"
    source.mkdir()
    target.mkdir()
    lines = (f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256))
    (source / "qwen.tiktoken").write_text("".join(lines))
    for name in ("tokenizer_config.json", "chat_template.jinja", "model.safetensors", "notes.txt"):
        (source / name).write_text("{}")
    for _ in range(2):  # a second time, as after a break
        copy_tokenizer(str(source), target)
    copied = target / "tokenizer"
    names = sorted(path.name for path in copied.iterdir())
    assert names == ["chat_template.jinja", "qwen.tiktoken", "tokenizer_config.json"]
    assert all((copied / name).read_bytes() == (source / name).read_bytes() for name in names)
    assert open_encoder(str(copied)).fingerprint == open_encoder(str(source)).fingerprint
    copy_tokenizer("bytes", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_tokenizer_of_a_folder_is_read(tmp_path: Path) -> None:
    lines = [f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256)]
    (tmp_path / "qwen.tiktoken").write_text("".join(lines))
    encoder = open_encoder(str(tmp_path))
    assert encoder.encode("ab") == [97, 98]
    assert encoder.eos_id == 256
    with pytest.raises(UserError, match=r"neither tokenizer\.json"):
        open_encoder(str(tmp_path / "none"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = random.Random(0)
    texts = ["".join(rng.choices("abc", k=30)) for _ in range(40)]
    packed(tmp_path, [texts], 16, 20)
    return tmp_path


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_corpus_without_its_manifest_is_refused(corpus: Path) -> None:
    (corpus / "manifest.json").unlink()
    with pytest.raises(UserError, match="packing was not finished"):
        PackedCorpus(corpus)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}'])
def test_a_broken_manifest_is_refused(corpus: Path, text: str) -> None:
    (corpus / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="no manifest"):
        PackedCorpus(corpus)


def test_a_manifest_of_another_version_is_refused(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text()) | {"version": 99}
    (corpus / "manifest.json").write_text(canonical_json(manifest))
    with pytest.raises(UserError, match="version 99, 1 can be read"):
        PackedCorpus(corpus)


def test_a_shard_of_another_size_is_refused(corpus: Path) -> None:
    path = corpus / "00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"00001\.bin: 638 bytes, the manifest says 640 bytes"):
        PackedCorpus(corpus)
    path.unlink()
    with pytest.raises(UserError, match=r"00001\.bin: missing"):
        PackedCorpus(corpus)


@pytest.mark.parametrize("name", ["00001.bin", "00000.starts.npy"])
def test_one_changed_bit_is_found(corpus: Path, name: str) -> None:
    change(corpus / name, 130)
    PackedCorpus(corpus)
    with pytest.raises(UserError, match=f"{name}: not the bytes of the manifest"):
        PackedCorpus(corpus, verify=True)
