"""Words that tell who wrote an answer are hidden, and the same words in other sentences are not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.human_eval_ui.answers.masking import MASK, mask
from tests.human_eval_ui.identity_sentences import NOT_TOLD, TOLD

INSTRUCTIONS = Path(__file__).parents[2] / "human_eval_ui" / "instructions" / "zh"
MARKED = re.compile("⟦(.*?)⟧")


@pytest.mark.parametrize("marked", TOLD)
def test_what_tells_the_writer_is_hidden_and_nothing_else(marked: str) -> None:
    found = mask(MARKED.sub(r"\1", marked))
    assert found.text == MARKED.sub(MASK, marked)
    assert found.count == len(MARKED.findall(marked))


@pytest.mark.parametrize("text", NOT_TOLD)
def test_the_same_words_stay_where_they_tell_nothing(text: str) -> None:
    assert mask(text) == mask(text, ["some-system"]) == type(mask(""))(text, 0)


def test_the_banks_are_large_and_of_both_languages() -> None:
    for bank in (TOLD, NOT_TOLD):
        assert len(bank) == len(set(bank)) >= 60
        english = [sentence for sentence in bank if MARKED.sub("", sentence).isascii()]
        assert 20 <= len(english) <= len(bank) - 20


@pytest.mark.parametrize("text", [*TOLD, *NOT_TOLD])
def test_masking_what_was_masked_changes_nothing(text: str) -> None:
    once = mask(MARKED.sub(r"\1", text))
    assert mask(once.text) == type(once)(once.text, 0)


def test_no_instruction_seems_to_tell_who_wrote_it() -> None:
    texts = [
        "\n".join([row["text"], *row["points"], row.get("answer") or ""])
        for path in sorted(INSTRUCTIONS.rglob("*.jsonl"))
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    ]
    assert len(texts) >= 300
    assert [text for text in texts if mask(text).count] == []


def test_sentences_are_judged_one_by_one() -> None:
    told = "".join(MARKED.sub(r"\1", sentence) + "\n" for sentence in TOLD)
    plain = "".join(sentence + "\n" for sentence in NOT_TOLD)
    expected = "".join(MARKED.sub(MASK, sentence) + "\n" for sentence in TOLD)
    assert mask(told + plain + told).text == expected + plain + expected


@pytest.mark.parametrize(
    ("asked", "text", "expected"),
    [
        ("OpenAI 是一家什么公司？", "OpenAI 发布了 ChatGPT。", f"OpenAI 发布了 {MASK}。"),
        ("openai 与 gpt4 的关系", "OpenAI 训练了 GPT-4-0613。", "OpenAI 训练了 GPT-4-0613。"),
        ("你是Ｑｗｅｎ吗？", "是，我是Qwen2.5，由阿里云开发。", f"是，我是Qwen2.5，由{MASK}开发。"),
        ("比较百度和谷歌", "我是百度的AI，不是谷歌的AI。", "我是百度的AI，不是谷歌的AI。"),
        ("豆包怎么做？", "我是豆包。", "我是豆包。"),
        ("反对 openaii 的人", "OpenAI", MASK),
        ("写一首诗", "我是豆包。", f"我是{MASK}。"),
        ("llama3 好吗", "Llama-3 比 Llama-2 好。", f"Llama-3 比 {MASK} 好。"),
    ],
)
def test_words_of_the_instruction_stay(asked: str, text: str, expected: str) -> None:
    assert mask(text, asked=asked).text == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("polaris-14b-rlhf", "I am Polaris 14B RLHF!", f"I am {MASK}!"),
        ("polaris-14b-rlhf", "polaris_14b_rlhf, Polaris14bRlhf", f"{MASK}, {MASK}"),
        ("polaris", "Polaris是polarise的Ｐolaris2", f"{MASK}是polarise的{MASK}2"),
        ("晨星", "我是晨星。", f"我是{MASK}。"),
        ("a.b*c(", "a.b*c( and axbc", f"{MASK} and axbc"),
        ("qwen", "我是Qwen2.5-7B。", f"我是{MASK}。"),
        ("qwen-7b-dawn", "Qwen-7B-Dawn or Qwen-7B", f"{MASK} or {MASK}"),
        ("x", "x is unknown", "x is unknown"),
        ("--", "a -- b", "a -- b"),
        (" ", "a b", "a b"),
        ("已隐去", "此处已隐去，Qwen", f"此处已隐去，{MASK}"),
    ],
)
def test_names_of_the_study_are_hidden_as_words(name: str, text: str, expected: str) -> None:
    assert mask(text, [name]).text == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我是Zephyr，一个AI助手。", f"我是{MASK}，一个AI助手。"),
        ("我叫 zephyr-7B。", f"我叫 {MASK}。"),
        ("I am Zephyr 7B, how can I help?", f"I am {MASK}, how can I help?"),
        ("I was trained by Zephyr.", f"I was trained by {MASK}."),
        ("我是由晨星团队开发的。", f"我是由{MASK}团队开发的。"),
        ("A zephyr is a wind. 晨星升起。", "A zephyr is a wind. 晨星升起。"),
        ("我是双子座，喜欢 Zephyr 和晨星。", "我是双子座，喜欢 Zephyr 和晨星。"),
        ("我是Zephyrus，风神。", "我是Zephyrus，风神。"),
    ],
)
def test_a_plain_word_is_hidden_where_a_sentence_tells_who_speaks(text: str, expected: str) -> None:
    found = mask(text, words=["Zephyr", "晨星"])
    assert found.text == expected
    assert mask(found.text, words=["Zephyr", "晨星"]) == type(found)(expected, 0)
    assert mask(text, words=["Zephyr", "晨星"], asked="Zephyr 与晨星").text == text


def test_the_longest_name_goes_first() -> None:
    assert mask("night-7b-chat", ["night", "night-7b-chat", "night-7b"]).text == MASK


@given(
    st.lists(
        st.sampled_from([*"我是由的开发，。. *&\u200b", "Claude ", "Kimi ", "Qwen", "百度", MASK])
    ),
    st.lists(st.sampled_from(["Kimi", "a", "是由", "开发。"])),
)
@settings(max_examples=150, deadline=None)
def test_no_name_is_left_and_nothing_else_is_touched(parts: list[str], names: list[str]) -> None:
    text = "".join(parts)
    found = mask(text, names)
    assert mask(found.text, names) == type(found)(found.text, 0)
    assert "qwen" not in found.text.casefold()
    assert found.text.count(MASK) == text.count(MASK) + found.count
    kept = [re.escape(part) for part in found.text.split(MASK)]
    assert re.fullmatch(".*".join(kept), text, re.DOTALL)


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_masked(text: str) -> None:
    found = mask(text, [text], asked="")
    assert found.count <= len(text)
    assert mask(text, asked=text).count == 0 or len(text) > 1
