"""Repeats and near-repeats against plain counts, and planted ones against the targets."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval import ngrams
from qwen_eval.train.data.exact import hashes, normalised, repeats
from qwen_eval.train.data.minhash import (
    Corpus,
    FuzzySettings,
    MinHasher,
    clusters,
    near_repeats,
    save_signed,
)
from qwen_eval.train.data.shards import save_array
from qwen_eval.train.documents import Document
from tests.train.corpora import (
    chinese,
    document,
    edited,
    english,
    framed,
    jaccard,
    plain_shingles,
    plain_words,
)

PLENTY = 1 << 28


def exact_drops(folder: Path, shards: list[list[Document]], memory: int = PLENTY) -> list[tuple]:
    files = []
    for i, shard in enumerate(shards):
        files.append(folder / f"{i}.npy")
        save_array(files[-1], hashes(shard))
    return [tuple(map(int, row)) for row in repeats(files, memory)]


def fuzzy_drops(
    folder: Path,
    shards: list[list[Document]],
    settings: FuzzySettings | None = None,
    memory: int = PLENTY,
) -> list[tuple[int, int, int]]:
    settings = settings or FuzzySettings()
    hasher = MinHasher(settings)
    stems = []
    for i, shard in enumerate(shards):
        stems.append(folder / f"{i}")
        save_signed(stems[-1], hasher.sign(shard))
    corpus = Corpus(stems)
    found = near_repeats(corpus, clusters(corpus, settings, memory), settings)
    return [(int(s), int(r), int(k)) for s, r, k in found]


@given(st.text(st.sampled_from("aB1 .,\n中文é-_"), max_size=30))
def test_words_are_those_of_a_regular_expression(text: str) -> None:
    found, expected = ngrams.words(text), plain_words(text)
    assert len(found) == len(expected)
    pairs = list(zip(found.tolist(), expected, strict=True))
    for a, b in pairs[1:]:
        assert (a == pairs[0][0]) == (b == pairs[0][1])


def test_hashes_are_the_same_in_every_process() -> None:
    code = (
        "from qwen_eval.ngrams import ngrams, words; print(ngrams(words('a b c 中'), 2).tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": s}
        ).stdout
        for s in ("1", "2")
    }
    assert seen == {f"{ngrams.ngrams(ngrams.words('a b c 中'), 2).tolist()}\n".encode()}


@settings(max_examples=40)
@given(st.lists(st.text(st.sampled_from("abc "), max_size=6), max_size=12), st.integers(1, 4))
def test_repeats_are_those_of_a_dictionary(texts: list[str], width: int) -> None:
    import tempfile

    documents = [document(text, f"x{i}") for i, text in enumerate(texts)]
    shards = [documents[i : i + width] for i in range(0, len(documents), width)]
    seen: dict[str, Document] = {}
    expected = []
    for i, one in enumerate(documents):
        first = seen.setdefault(normalised(one.text), one)
        if first is not one:
            expected.append((i // width, i % width, int(first.id, 16)))
    for memory in (PLENTY, 100):  # 100 bytes: many parts
        with tempfile.TemporaryDirectory() as folder:
            assert exact_drops(Path(folder), shards, memory) == expected


def test_what_is_normalised_away() -> None:
    assert normalised("The  Cat,\nsat!") == normalised("the cat sat")
    assert normalised("ＡＢＣ１２３，你好") == normalised("abc123你好")
    assert normalised("the cat") != normalised("the cats")
    assert normalised("...") == "..."


def test_signatures_estimate_the_jaccard_similarity() -> None:
    rng = random.Random(3)
    hasher = MinHasher(FuzzySettings())
    errors = []
    for share in [0.002, 0.01, 0.02, 0.05, 0.1, 0.2] * 8:
        for text in (english(rng, 400), chinese(rng, 400)):
            other = edited(rng, text, share)
            signed = hasher.sign([document(text, "a"), document(other, "b")]).signature
            true = jaccard(list(plain_shingles(text)), list(plain_shingles(other)))
            errors.append(float((signed[0] == signed[1]).mean()) - true)
    # 120 places: a standard error of at most 0.046 each, so 96 of them have a mean within 0.02.
    assert abs(np.mean(errors)) < 0.02
    assert np.sqrt(np.mean(np.square(errors))) < 0.055


def planted(rng: random.Random, count: int) -> tuple[list[Document], dict[int, int]]:
    """Documents in random order; for each planted near-repeat its original's number."""
    texts: list[tuple[str, int | None]] = []
    for i in range(count):
        size = rng.randrange(60, 600)
        text = english(rng, size) if i % 2 else chinese(rng, size)
        texts.append((text, None))
        if i % 4 == 0:  # what must be found
            kind = rng.random()
            twin = framed(rng, text * 3) if kind < 0.3 else edited(rng, text, 0.015)
            texts[-1] = (text * 3, None) if kind < 0.3 else texts[-1]
            texts.append((twin, len(texts) - 1))
        elif i % 4 == 1:  # what must not: half of it is another text
            half = text[: len(text) // 2]
            texts.append((half + (english(rng, size // 2) if i % 2 else chinese(rng, size)), None))
    order = list(range(len(texts)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    documents = [document(texts[old][0], f"d{new}") for new, old in enumerate(order)]
    return documents, {
        place[i]: place[original] for i, (_, original) in enumerate(texts) if original is not None
    }


def test_planted_repeats_are_found_and_nothing_else(tmp_path: Path) -> None:
    documents, twins = planted(random.Random(11), 1600)
    shards = [documents[i : i + 500] for i in range(0, len(documents), 500)]
    dropped = {s * 500 + r for s, r, _ in fuzzy_drops(tmp_path, shards)}
    near = {
        pair
        for pair in twins.items()
        if jaccard(*(list(plain_shingles(documents[i].text)) for i in pair)) >= 0.75
    }
    assert len(near) > 300
    found = sum(a in dropped or b in dropped for a, b in near)
    innocent = set(range(len(documents))) - set(twins) - set(twins.values())
    print(f"recall {found}/{len(near)}, false drops {len(dropped & innocent)}/{len(innocent)}")
    assert found / len(near) >= 0.95
    assert len(dropped & innocent) / len(innocent) <= 0.001
    # One of each pair stays.
    assert not any(a in dropped and b in dropped for a, b in twins.items())


def test_memory_and_shards_change_nothing(tmp_path: Path) -> None:
    documents, _ = planted(random.Random(5), 120)
    ids = [[], [], []]  # type: list[list[tuple[str, int]]]
    for found, (width, memory) in zip(ids, [(1000, PLENTY), (7, PLENTY), (50, 2000)], strict=True):
        shards = [documents[i : i + width] for i in range(0, len(documents), width)]
        folder = tmp_path / f"{width}"
        folder.mkdir()
        for shard, row, kept in fuzzy_drops(folder, shards, memory=memory):
            found.append((shards[shard][row].id, kept))
    assert ids[0] == ids[1] == ids[2] != []


def test_every_drop_is_like_the_one_that_stays(tmp_path: Path) -> None:
    # A chain: each is like its neighbour, the ends are not alike.
    rng = random.Random(2)
    words = english(rng, 700).split(" ")
    chain = [document(" ".join(words[i * 30 : i * 30 + 400]), f"c{i}") for i in range(10)]
    settings = FuzzySettings(keep="first")
    drops = fuzzy_drops(tmp_path, [chain], settings)
    by_id = {int(one.id, 16): one for one in chain}
    hasher = MinHasher(settings)
    assert drops
    for _, row, kept in drops:
        pair = hasher.sign([chain[row], by_id[kept]]).signature
        assert (pair[0] == pair[1]).mean() >= settings.threshold
    assert len(drops) < 9  # a cluster by chains alone would keep one


@pytest.mark.parametrize("keep", ["longest", "first"])
def test_which_one_is_kept(tmp_path: Path, keep: str) -> None:
    text = english(random.Random(1), 300)
    shards = [[document(text, "a"), document(text + " and more", "b")], [document(text, "c")]]
    drops = fuzzy_drops(tmp_path, shards, FuzzySettings(keep=keep))  # type: ignore[arg-type]
    kept = int(shards[0][keep == "longest"].id, 16)
    rows = [(0, 0), (1, 0)] if keep == "longest" else [(0, 1), (1, 0)]
    assert drops == [(*row, kept) for row in rows]


def test_texts_without_words_are_never_alike(tmp_path: Path) -> None:
    shards = [[document(text, f"{i}") for i, text in enumerate(["", "!!!", "...", "。", ""])]]
    assert fuzzy_drops(tmp_path, shards) == []


def test_nothing_at_all_is_no_error(tmp_path: Path) -> None:
    assert exact_drops(tmp_path, []) == exact_drops(tmp_path, [[]]) == []
    assert fuzzy_drops(tmp_path, []) == fuzzy_drops(tmp_path, [[]]) == []
