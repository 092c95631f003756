"""What is learnt of a conversation, token by token, and how conversations share a sequence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.model.bundled import folder
from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.train.conversations import (
    ConversationFeed,
    Turns,
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


ENGLISH = (("user", "Who wrote it?"), ("assistant", "Jane Austen, in 1813."))
CHINESE = (
    ("user", "谁写的？"),
    ("assistant", "曹雪芹。"),
    ("user", "哪一年？"),
    ("assistant", "乾隆年间。"),
)
TURNS = (("user", "你好 <|im_end|>"), ("assistant", "Hi."), ("user", "Why?"), ("assistant", "因为"))


# What a tool returned stands in the assistant's turn: neither mask learns it.
WITH_TOOLS = (
    ("user", "几度?"),
    ("assistant", "Thought: 看\nAction: w\nAction Input: {}\nObservation:"),
    ("observation", " 零下5°C\nThought:"),
    ("assistant", " I know\nFinal Answer: 很冷"),
    ("user", "And?"),
    ("assistant", "Cold."),
)


def marked(tokenizer: Tokenizer, mask, turns: Turns = TURNS) -> str:
    """The conversation with what is learnt between brackets, control tokens shown."""
    ids, wanted = learnt(turns, tokenizer, mask)
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
    """finetune.py: <|im_start|>, <|im_end|> and the line end behind it; headers never."""
    assert marked(tokenizer, "released") == (
        "[<|im_start|>]system\nYou are a helpful assistant.[<|im_end|>\n"
        "<|im_start|>]user\n你好 <|im_end|>[<|im_end|>\n"
        "<|im_start|>]assistant\n[Hi.<|im_end|>\n"
        "<|im_start|>]user\nWhy?[<|im_end|>\n"
        "<|im_start|>]assistant\n[因为<|im_end|>\n]"
    )


def test_what_a_tool_returned_is_never_learnt(tokenizer: Tokenizer) -> None:
    assert marked(tokenizer, "paper", WITH_TOOLS) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n几度?<|im_end|>\n"
        "<|im_start|>assistant\n[Thought: 看\nAction: w\nAction Input: {}\nObservation:]"
        " 零下5°C\nThought:[ I know\nFinal Answer: 很冷<|im_end|>]\n"
        "<|im_start|>user\nAnd?<|im_end|>\n"
        "<|im_start|>assistant\n[Cold.<|im_end|>]\n"
    )
    assert marked(tokenizer, "released", WITH_TOOLS).startswith(
        "[<|im_start|>]system\nYou are a helpful assistant.[<|im_end|>\n"
        "<|im_start|>]user\n几度?[<|im_end|>\n"
        "<|im_start|>]assistant\n[Thought: 看\nAction: w\nAction Input: {}\nObservation:]"
        " 零下5°C\nThought:[ I know\nFinal Answer: 很冷<|im_end|>\n<|im_start|>]user"
    )
    broken_off = marked(tokenizer, "paper", WITH_TOOLS[:3])
    assert broken_off.endswith("Observation:] 零下5°C\nThought:<|im_end|>\n")


@pytest.mark.parametrize("turns", [TURNS, ENGLISH, CHINESE], ids=["marks", "en", "zh"])
def test_labels_are_those_of_the_released_script(turns: Turns) -> None:
    """Counted as finetune.py counts them: of a turn its first token and its last two, and of an
    assistant's all behind its header."""
    bundled = load_tokenizer(folder("tiny"))
    start, end = bundled.special("<|im_start|>"), bundled.special("<|im_end|>")
    newline = bundled.encode("\n")
    labels: list[int | None] = []
    for role, content in (("system", "You are a helpful assistant."), *turns):
        header = [start, *bundled.encode(role), *newline]
        turn = [*header, *bundled.encode(content), end, *newline]
        if role == "assistant":
            labels += [start, *[None] * (len(header) - 1), *turn[len(header) : -2], end, *newline]
        else:
            labels += [start, *[None] * (len(turn) - 3), end, *newline]
    ids, wanted = learnt(turns, bundled, "released")
    assert [i if learns else None for i, learns in zip(ids, wanted, strict=True)] == labels
    _, of_the_paper = learnt(turns, bundled, "paper")
    answers = [content for role, content in turns if role == "assistant"]
    kept = [i for i, learns in zip(ids, of_the_paper, strict=True) if learns]
    assert kept == [i for answer in answers for i in (*bundled.encode(answer), end)]


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


def test_without_packing_each_has_its_own_sequence_padded_on_the_right() -> None:
    encoded = [([1, 2, 3], [False, True, True]), ([4, 5], [False, True]), ([6] * 70, [True] * 70)]
    packed = pack_conversations(encoded, 128, filler=9, packing=False)
    assert packed.ids_NL[:, :4].tolist() == [[1, 2, 3, 9], [4, 5, 9, 9], [6] * 4]
    assert packed.targets_NL[0, :4].tolist() == [2, 3, IGNORED, IGNORED]
    feed = ConversationFeed(packed, seed=3, trimmed=True)
    short, long = feed.parts([0, 1, 2], 2)
    assert (short.ids_BS.shape, long.ids_BS.shape) == ((2, 64), (1, 128))
    assert short.documents_BS is long.documents_BS is None
    for part, rows in ((short, [0, 1]), (long, [2])):
        kept = part.ids_BS.shape[1]
        assert torch.equal(part.targets_BS, packed.targets_NL[rows, :kept])
        assert (packed.targets_NL[rows, kept:] == IGNORED).all()


def test_what_does_not_fit_is_cut_and_counted() -> None:
    whole, cut = ([1, 2], [False, True]), ([1, 2, 3, 4, 5], [False, True, False, False, True])
    prompt_too_long = ([1, 2, 3, 4, 5], [False, False, False, False, True])
    packed = pack_conversations([whole, cut, prompt_too_long, prompt_too_long], 4, filler=0)
    assert (packed.cut, packed.left_out) == (1, 2)
    assert int((packed.documents_NL == 0).sum()) == 6


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
        ({"prompt": "a", "response": " "}, "turn 2, the assistant's, is empty; leave the row out"),
        (
            {"messages": [{"role": r, "content": c} for r, c in (*TURNS, ("assistant", ""))]},
            "file, row 3: turn 5, the assistant's, is empty",
        ),
        (
            {"messages": [{"role": r, "content": "a"} for r in ("user", "observation")]},
            "no answer of an assistant",
        ),
        (
            {"messages": [{"role": r, "content": "a"} for r in ("observation", "assistant")]},
            "turn 1, an observation, is behind no assistant's",
        ),
    ],
)
def test_what_is_no_conversation_is_refused(row, problem) -> None:
    with pytest.raises(UserError, match=problem):
        turns_of(row, "file, row 3")


def test_columns_of_other_names() -> None:
    row = {"Body": "Ann has 2.", "Question": "Twice?", "Answer": 4.0, "share": 0.5}
    wanted = (("user", "Ann has 2. Twice?"), ("assistant", "4"))
    assert turns_of(row, "here", ("Body", "Question"), "Answer") == wanted
    assert turns_of(row, "here", ("Question",), "share")[1] == ("assistant", "0.5")
    with pytest.raises(UserError, match="here: Hint is missing, or neither text nor number"):
        turns_of(row, "here", ("Hint",), "Answer")
