"""Learning byte pairs: against a plain trainer, the tokenizers library, and tiktoken's encoder."""

from __future__ import annotations

import importlib.metadata
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import (
    QWEN_PATTERN,
    QWEN_SPECIALS,
    TiktokenTokenizer,
    load_tokenizer,
    normal_form,
)
from qwen_eval.train.documents import Document, documents, text_files
from qwen_eval.train.tokenizer import layout
from qwen_eval.train.tokenizer import merges as merges_module
from qwen_eval.train.tokenizer.layout import lay_out
from qwen_eval.train.tokenizer.merges import Merge, learn
from qwen_eval.train.tokenizer.pieces import count_pieces
from qwen_eval.train.tokenizer.vocabulary import (
    BYTES,
    extended,
    merged,
    read_base,
    without_numbers,
    write_vocabulary,
)

TEXT = (
    "The quick brown fox, aged 12345, didn't jump over the other foxes. aaaaaa aaaa aaa\n\n"
    "def fox(quick):\n    return quick  # 100%\n 你好，世界！你好，狐狸。 🦀🦀 naïve café\n"
) * 3
# Few letters, so that pairs overlap, tie and repeat.
small_texts = st.lists(st.text("ab 你好1\n", max_size=30), min_size=1, max_size=6)


def learnt(
    texts: Iterable[str], size: int, base: Sequence[bytes] = BYTES
) -> tuple[list[Merge], list[bytes]]:
    counts = count_pieces(Document("", text, "here") for text in texts).counts
    merges = list(learn(lay_out(counts, base), size))
    return merges, extended(base, merges)


def replaced(ids: list[int], left: int, right: int, new: int) -> list[int]:
    """Every pair from the left made one id."""
    out: list[int] = []
    for value in ids:
        # `new` never pairs: it is greater than both.
        if out and out[-1] == left and value == right:
            out[-1] = new
        else:
            out.append(value)
    return out


def plainly_learnt(counts: dict[str, int], size: int, base: Sequence[bytes]) -> list[Merge]:
    """Byte-pair encoding as it is defined, counting everything anew at every step."""
    ranks = {token: rank for rank, token in enumerate(base)}
    pieces = [
        ([ranks[t] for t in merged(piece.encode(), ranks, len(base))], count)
        for piece, count in counts.items()
    ]
    merges: list[Merge] = []
    while len(base) + len(merges) < size:
        pairs: Counter[tuple[int, int]] = Counter()
        for ids, count in pieces:
            for pair in pairwise(ids):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < 2:
            break
        (left, right), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        new = len(base) + len(merges)
        merges.append(Merge(left, right, count))
        pieces = [(replaced(ids, left, right, new), n) for ids, n in pieces]
    return merges


@given(texts=small_texts)
@settings(max_examples=150)
def test_merges_are_those_of_a_plain_trainer(texts: list[str]) -> None:
    counts = Counter(p for text in texts for p in regex.findall(QWEN_PATTERN, normal_form(text)))
    if counts:
        assert learnt(texts, 256 + 25)[0] == plainly_learnt(counts, 256 + 25, BYTES)


@given(texts=small_texts, before=small_texts, weights=st.lists(st.integers(1, 9), min_size=99))
@settings(max_examples=100)
def test_merges_on_a_base_with_weighted_pieces(
    texts: list[str], before: list[str], weights: list[int]
) -> None:
    base = learnt([*before, "好好好ab 你好 ab"], 256 + 12)[1]
    pieces = sorted({p for t in texts for p in regex.findall(QWEN_PATTERN, normal_form(t))})
    counts = dict(zip(pieces, weights, strict=False))
    if counts:
        found = list(learn(lay_out(counts, base), len(base) + 20))
        assert found == plainly_learnt(counts, len(base) + 20, base)


@pytest.mark.parametrize("parts", [None, 7])
def test_a_plain_trainer_on_real_text(parts: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole, and in many small chunks, batches and fillings of the heap."""
    if parts:
        for module, name in ((merges_module, "CHUNK"), (merges_module, "HEAP"), (layout, "BATCH")):
            monkeypatch.setattr(module, name, parts)
    counts = Counter(regex.findall(QWEN_PATTERN, TEXT))
    assert learnt([TEXT], 400)[0] == plainly_learnt(counts, 400, BYTES)


def gpt2_bytes() -> list[bytes]:
    """Bytes in the order in which the tokenizers library numbers its alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [bytes([b]) for b in [*printable, *(b for b in range(256) if b not in printable)]]


@pytest.fixture(scope="module")
def sample(mirror: Path) -> list[str]:
    """Some of every pretraining file: English, Chinese, code; 1.5 MB."""
    files = text_files([mirror / "pretrain"])
    return [d.text for d in documents(files, 1_500_000)]


def test_tokens_are_those_of_the_tokenizers_library(sample: list[str]) -> None:
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.trainers import BpeTrainer

    theirs = Tokenizer(BPE())
    theirs.normalizer = NFC()
    theirs.pre_tokenizer = Sequence(
        [
            Split(Regex(QWEN_PATTERN), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = ByteLevel.alphabet()
    theirs.train_from_iterator(
        sample,
        BpeTrainer(
            vocab_size=2000, min_frequency=2, initial_alphabet=alphabet, show_progress=False
        ),
    )
    letters = {char: byte[0] for char, byte in zip(sorted(alphabet), gpt2_bytes(), strict=True)}
    vocabulary = sorted(theirs.get_vocab().items(), key=lambda item: item[1])
    expected = [bytes(letters[char] for char in token) for token, _ in vocabulary]
    assert learnt(sample, 2000, gpt2_bytes())[1] == expected


# --- what encoders make of it -------------------------------------------------------------------


def encoder(tokens: Sequence[bytes]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "learnt",
        pat_str=QWEN_PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={},
    )


def in_order(text: str, base: Sequence[bytes], merges: Sequence[Merge]) -> list[int]:
    """Ids by the base, then by every merge in the order in which it was learnt."""
    ranks = {token: rank for rank, token in enumerate(base)}
    out: list[int] = []
    for piece in regex.findall(QWEN_PATTERN, text):
        ids = [ranks[token] for token in merged(piece.encode(), ranks, len(base))]
        for new, merge in enumerate(merges, len(base)):
            ids = replaced(ids, merge.left, merge.right, new)
        out += ids
    return out


@pytest.fixture(scope="module")
def continued() -> tuple[list[bytes], list[Merge], list[bytes]]:
    """A base, merges on top of it, and all tokens."""
    _, base = learnt([TEXT], 320)
    merges, tokens = learnt([TEXT, "你好，世界！狐狸 fox fix " * 5], 400, base)
    return base, merges, tokens


@given(text=st.text() | st.text("abdefox 你好，世界123\n'"))
@settings(max_examples=200)
def test_tiktoken_applies_the_merges_in_their_order(
    continued: tuple[list[bytes], list[Merge], list[bytes]], text: str
) -> None:
    base, merges, tokens = continued
    assert encoder(tokens).encode_ordinary(text) == in_order(text, base, merges)


def test_tiktoken_applies_the_merges_in_their_order_on_real_text(sample: list[str]) -> None:
    base = learnt(sample[::2], 700)[1]
    merges, tokens = learnt(sample[1::2], 1100, base)
    text = "".join(random.Random(3).sample(sample, 40))[:40_000]
    text = normal_form(text)
    assert encoder(tokens).encode_ordinary(text) == in_order(text, base, merges)


def test_every_token_is_reached(continued: tuple[list[bytes], list[Merge], list[bytes]]) -> None:
    """tiktoken looks a whole piece up before it merges; merging must come to the same."""
    ranks = {token: rank for rank, token in enumerate(continued[2])}
    for token in ranks:
        assert merged(token, ranks, len(ranks)) == [token]


@given(text=st.text())
def test_pieces_are_tiktokens(
    continued: tuple[list[bytes], list[Merge], list[bytes]], text: str
) -> None:
    """Python's regex module and tiktoken's split alike, or counts would be of other pieces."""
    found = encoder(continued[2])
    pieces = regex.findall(QWEN_PATTERN, text)
    assert "".join(pieces) == text
    one_by_one = [i for p in pieces for i in found._encode_single_piece(p)]
    assert found.encode_ordinary(text) == one_by_one


@given(data=st.binary(max_size=200))
def test_any_bytes_come_back(
    continued: tuple[list[bytes], list[Merge], list[bytes]], data: bytes
) -> None:
    found = encoder(continued[2])
    assert found.decode_bytes(found._encode_bytes(data)) == data
    assert b"".join(merged(data, found._mergeable_ranks, found.n_vocab)) == data


@given(text=st.text())
def test_any_text_comes_back_by_both_loaders(written: Path, text: str) -> None:
    ours, theirs = load_tokenizer(written), by_tiktoken(written)
    ids = ours.encode(text)
    assert ids == theirs.encode_ordinary(normal_form(text))
    assert ours.decode_bytes(ids) == normal_form(text).encode()


@pytest.fixture(scope="module")
def written(continued: tuple[list[bytes], list[Merge], list[bytes]], tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder, continued[2], {})
    return folder


def by_tiktoken(folder: Path) -> tiktoken.Encoding:
    from tiktoken.load import load_tiktoken_bpe

    ranks = load_tiktoken_bpe(str(folder / "qwen.tiktoken"))
    return tiktoken.Encoding("file", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens={})


def test_control_tokens_follow_the_last_rank(
    written: Path, continued: tuple[list[bytes], list[Merge], list[bytes]]
) -> None:
    tokenizer = load_tokenizer(written)
    assert isinstance(tokenizer, TiktokenTokenizer)
    count = len(continued[2])
    assert tokenizer.vocab_size == count + len(QWEN_SPECIALS)
    assert tokenizer.special("<|endoftext|>") == count


def test_digits_stay_alone(sample: list[str]) -> None:
    _, tokens = learnt([*sample, "1000 1000 1000 x1000 " * 1000], 900)
    assert not [t for t in tokens if len(t) > 1 and re.search(rb"[0-9]", t)]
    ids = encoder(tokens).encode_ordinary("x=31000")
    assert [tokens[i] for i in ids][-5:] == [b"3", b"1", b"0", b"0", b"0"]


# --- published vocabularies as bases ------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen_file() -> Path:
    found = importlib.metadata.distribution("dashscope")
    return Path(str(found.locate_file("dashscope/resources/qwen.tiktoken")))


@pytest.fixture(scope="module")
def cl100k_file() -> Path:
    """The ranks of cl100k_base: QWEN_EVAL_CL100K, or those inside an installed litellm."""
    if os.environ.get("QWEN_EVAL_CL100K"):
        return Path(os.environ["QWEN_EVAL_CL100K"])
    try:
        found = importlib.metadata.distribution("litellm")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no cl100k: set QWEN_EVAL_CL100K to its ranks file, or install litellm")
    inside = "litellm/litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    return Path(str(found.locate_file(inside)))


@pytest.mark.slow
def test_qwens_own_vocabulary_goes_on(qwen_file: Path, sample: list[str]) -> None:
    base = read_base(qwen_file)
    merges, tokens = learnt(sample, len(base) + 300, base)
    assert tokens[: len(base)] == base
    assert len(merges) == 300
    text = normal_form("".join(sample[::50]))[:30_000]
    before, after = encoder(base), encoder(tokens)
    ids = before.encode_ordinary(text)
    assert after.encode_ordinary(text) == in_order_of_ids(text, before, merges, len(base))
    assert len(after.encode_ordinary(text)) < len(ids)


def in_order_of_ids(
    text: str, base: tiktoken.Encoding, merges: Sequence[Merge], known: int
) -> list[int]:
    out: list[int] = []
    for piece in regex.findall(QWEN_PATTERN, text):
        ids = base.encode_ordinary(piece)
        for new, merge in enumerate(merges, known):
            ids = replaced(ids, merge.left, merge.right, new)
        out += ids
    return out


@pytest.mark.slow
def test_qwen_kept_cl100k_but_for_its_numbers(cl100k_file: Path, qwen_file: Path) -> None:
    """The published vocabulary begins as ours does with --drop-numbers."""
    kept = without_numbers(read_base(cl100k_file))
    assert len(kept) == 100_256 - 1_100
    assert read_base(qwen_file)[: len(kept)] == kept


def write_ranks(path: Path, tokens: Sequence[bytes]) -> Path:
    write_vocabulary(path, tokens, {})
    return path / "qwen.tiktoken"


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        ([*BYTES, b"abc"], "line 257: b'abc' comes of no merge"),
        ([*BYTES[1:], b"ab", b"cd"], r"no token for the byte b'\x00'"),
    ],
)
def test_a_base_that_cannot_be_learnt_on(tmp_path: Path, tokens: list[bytes], named: str) -> None:
    path = write_ranks(tmp_path, tokens)
    with pytest.raises(UserError, match=re.escape(named)):
        read_base(path)
