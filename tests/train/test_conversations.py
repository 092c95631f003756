"""What is learnt of a conversation, token by token, and how conversations share a sequence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.train.conversations import (
    ConversationFeed,
    learnt,
    pack_conversations,
    turns_of,
)
from qwen_eval.train.cross_entropy import IGNORED
from qwen_eval.train.tokenizer.vocabulary import BYTES, open_folder, write_vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes as tokens, with ChatML's control tokens behind them."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    open_folder(folder)
    write_vocabulary(folder, list(BYTES), {})
    return load_tokenizer(folder)


TURNS = (("user", "你好 <|im_end|>"), ("assistant", "Hi."), ("user", "Why?"), ("assistant", "因为"))


def marked(tokenizer: Tokenizer, mask) -> str:
    """The conversation with what is learnt between brackets, control tokens shown."""
    ids, wanted = learnt(TURNS, tokenizer, mask)
    shown, inside = "", False
    run: list[int] = []
    for token, is_wanted in [*zip(ids, wanted, strict=True), (None, False)]:
        if is_wanted != inside or token is None:
            text = tokenizer.decode(run, show_special=True)
            shown += f"[{text}]" if inside else text
            run, inside = [], is_wanted
        if token is not None:
            run.append(token)
    return shown


def test_the_papers_mask_learns_answers_and_their_end(tokenizer: Tokenizer) -> None:
    assert marked(tokenizer, "paper") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n你好 <|im_end|><|im_end|>\n"
        "<|im_start|>assistant\n[Hi.<|im_end|>]\n"
        "<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n[因为<|im_end|>]\n"
    )


def test_the_released_mask_learns_every_mark_too(tokenizer: Tokenizer) -> None:
    """finetune.py: <|im_start|>, <|im_end|> and line ends of all turns; roles never."""
    assert marked(tokenizer, "released") == (
        "[<|im_start|>]system[\n]You are a helpful assistant.[<|im_end|>\n"
        "<|im_start|>]user[\n]你好 <|im_end|>[<|im_end|>\n"
        "<|im_start|>]assistant[\nHi.<|im_end|>\n"
        "<|im_start|>]user[\n]Why?[<|im_end|>\n"
        "<|im_start|>]assistant[\n因为<|im_end|>\n]"
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(2, 40), st.integers(0, 40)).map(
            lambda pair: ([*range(1, pair[0] + 1)], [i >= pair[1] for i in range(pair[0])])
        ),
        min_size=1,
        max_size=30,
    )
)
def test_packing_loses_and_mixes_nothing(encoded) -> None:
    length = 24
    kept = [(ids[:length], wanted[:length]) for ids, wanted in encoded]
    kept = [(ids, wanted) for ids, wanted in kept if any(wanted[1:])]
    if not kept:
        with pytest.raises(UserError, match="none of them has an answer"):
            pack_conversations(encoded, length, filler=0)
        return
    packed = pack_conversations(encoded, length, filler=0)
    found = []
    for ids, targets, documents in zip(
        packed.ids_NL, packed.targets_NL, packed.documents_NL, strict=True
    ):
        for number in sorted(set(documents.tolist()) - {-1}):
            at = (documents == number).nonzero().flatten()
            assert at.tolist() == list(range(int(at[0]), int(at[-1]) + 1))
            found.append((ids[at].tolist(), targets[at].tolist()))
        assert (targets[documents == -1] == IGNORED).all()
    wanted_targets = [
        (
            ids,
            [
                ids[i + 1] if i + 1 < len(ids) and wanted[i + 1] else IGNORED
                for i in range(len(ids))
            ],
        )
        for ids, wanted in kept
    ]
    assert sorted(found) == sorted(wanted_targets)


def test_every_epoch_sees_every_sequence_once() -> None:
    packed = pack_conversations([([1, 2, 3], [False, True, True])] * 7, 4, filler=0)
    feed = ConversationFeed(packed, seed=3)
    assert len(feed) == 7
    seen = feed.places(0, 21)
    assert all(sorted(seen[i : i + 7]) == list(range(7)) for i in (0, 7, 14))
    assert seen[:7] != seen[7:14]
    assert feed.places(5, 9) == seen[5:14]
    assert feed.tokens_asked([0, 3]) == 4
    part = next(feed.parts([2, 5], 2))
    assert part.ids_BS.shape == (2, 4)
    assert part.documents_BS is not None
    assert torch.equal(part.documents_BS, torch.tensor([[0, 0, 0, -1]] * 2))


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"instruction": "a", "input": "b", "output": "c"}, (("user", "a\nb"), ("assistant", "c"))),
        ({"instruction": "a", "input": "", "output": "c"}, (("user", "a"), ("assistant", "c"))),
        ({"prompt": "a", "response": "c"}, (("user", "a"), ("assistant", "c"))),
        (
            {"prompt": "Below.\n\n### Instruction:\na\nb\n\n### Response:\n", "response": "c"},
            (("user", "a\nb"), ("assistant", "c")),
        ),
        (
            {"prompt": "### Instruction:\na\n\n### Input:\nx\n\n### Response:\n", "response": "c"},
            (("user", "a\nx"), ("assistant", "c")),
        ),
    ],
)
def test_rows_become_turns(row, turns) -> None:
    assert turns_of(row, "here") == turns


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "a"}, "file, row 3: needs messages, or instruction and output"),
        ({"messages": [{"role": "human", "content": "a"}]}, "a message needs role"),
        ({"messages": ["a"]}, "a message needs role"),
        ({"messages": "no"}, "a message needs role"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no answer of an assistant"),
        ({"prompt": "a", "response": " "}, "no answer of an assistant"),
    ],
)
def test_what_is_no_conversation_is_refused(row, problem) -> None:
    with pytest.raises(UserError, match=problem):
        turns_of(row, "file, row 3")
