"""Every sequence in its place, whoever reads it, and every token with its target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qwen_eval.errors import UserError
from qwen_eval.train.cross_entropy import IGNORED
from qwen_eval.train.data.pack import PackedCorpus
from qwen_eval.train.feed import Feed
from tests.train.toy_training import LENGTH, write_packed


@pytest.fixture
def corpus(tmp_path: Path) -> PackedCorpus:
    return PackedCorpus(write_packed(tmp_path / "corpus"), verify=True)


def stream(corpus: PackedCorpus) -> tuple[list[int], list[int]]:
    """All tokens in a row, and the number of every token's document, from the end of texts."""
    tokens = [int(t) for i in range(len(corpus)) for t in corpus[i]]
    eos, number, numbers = corpus.manifest["eos_id"], 0, []
    for token in tokens:
        numbers.append(number)
        number += token == eos
    return tokens, numbers


@pytest.mark.parametrize("length", [LENGTH, 16, 2])
def test_an_epoch_is_every_sequence_once(corpus: PackedCorpus, length: int) -> None:
    feed = Feed(corpus, length, seed=3)
    assert len(feed) == len(corpus) * LENGTH // length
    epochs = [feed.places(epoch * len(feed), len(feed)) for epoch in range(3)]
    for places in epochs:
        assert sorted(places) == list(range(len(feed)))
    assert epochs[0] != epochs[1] != epochs[2] != sorted(epochs[2])
    assert epochs[0] != Feed(corpus, length, seed=4).places(0, len(feed))


def test_places_are_one_row_however_they_are_asked_for(corpus: PackedCorpus) -> None:
    feed = Feed(corpus, LENGTH, seed=3)
    total = 2 * len(feed) + 7
    row = feed.places(0, total)
    by_one = [place for at in range(total) for place in feed.places(at, 1)]
    backwards = [feed.places(at, 1)[0] for at in reversed(range(total))][::-1]
    assert row == by_one == backwards
    assert Feed(corpus, LENGTH, seed=3).places(5, total - 5) == row[5:]


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("length", [LENGTH, 8])
def test_tokens_targets_and_documents(corpus: PackedCorpus, length: int, separate: bool) -> None:
    tokens, numbers = stream(corpus)
    feed = Feed(corpus, length, seed=3, separate=separate)
    places = feed.places(0, len(feed))
    (part,) = feed.parts(places, len(places))
    asked = 0
    for line, place in enumerate(places):
        at = place * length
        assert part.ids_BS[line].tolist() == tokens[at : at + length]
        for i in range(length):
            apart = separate and i + 1 < length and numbers[at + i] != numbers[at + i + 1]
            wanted = IGNORED if i + 1 == length or apart else tokens[at + i + 1]
            assert part.targets_BS[line, i] == wanted
            asked += wanted != IGNORED
        if separate:
            assert part.documents_BS is not None
            told = part.documents_BS[line].numpy()
            truth = np.array(numbers[at : at + length])
            assert ((told[:, None] == told) == (truth[:, None] == truth)).all()
    assert separate or part.documents_BS is None
    assert feed.tokens_asked(places) == asked
    assert part.ids_BS.dtype == part.targets_BS.dtype == torch.int64


def test_parts_are_the_places_in_order(corpus: PackedCorpus) -> None:
    feed = Feed(corpus, LENGTH, seed=3)
    places = feed.places(0, 7)
    parts = list(feed.parts(places, 3))
    assert [len(part.ids_BS) for part in parts] == [3, 3, 1]
    (whole,) = feed.parts(places, 7)
    assert torch.equal(torch.cat([part.ids_BS for part in parts]), whole.ids_BS)


def test_a_length_that_does_not_divide_is_refused(corpus: PackedCorpus) -> None:
    with pytest.raises(UserError, match="a length of 7 does not divide the sequences of 32"):
        Feed(corpus, 7, seed=0)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "none", documents=1, length=4096)
    with pytest.raises(UserError, match="holds no sequence"):
        Feed(PackedCorpus(folder), 4096, seed=0)
