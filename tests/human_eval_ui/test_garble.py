"""A garbled answer looks like the answer and says nothing."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.human_eval_ui.answers.garble import FEWEST, garble
from qwen_eval.human_eval_ui.answers.shape import markdown_elements

ANSWER = """# 如何煮面

1. 先把水烧开，再放面条，煮**三分钟**。
2. 捞出来过一遍凉水；the noodles should be al dente, not too soft。

> 小提示：盐要最后放。

```python
def cook(minutes, salt):
    return minutes + salt
```
"""


def test_an_answer_keeps_its_look_and_loses_its_sense() -> None:
    for seed in "abcdefgh":
        damaged = garble(ANSWER, seed)
        assert damaged != ANSWER
        assert Counter(damaged) == Counter(ANSWER)
        assert markdown_elements(damaged) == markdown_elements(ANSWER)
        assert re.sub(r"\w", "", damaged) == re.sub(r"\w", "", ANSWER)
        chinese = [set(re.findall("(?=([一-龥]{2}))", text)) for text in (ANSWER, damaged)]
        assert len(chinese[0] & chinese[1]) < len(chinese[0]) / 5


def test_words_of_english_stay_words() -> None:
    text = "The cat sat on the mat, and the dog lay by the door. It was very late at night."
    damaged = garble(text, "s")
    assert Counter(re.findall(r"\w+", damaged)) == Counter(re.findall(r"\w+", text))
    assert damaged != text


def test_the_seed_decides() -> None:
    assert garble(ANSWER, "a") == garble(ANSWER, "a")
    assert len({garble(ANSWER, str(seed)) for seed in range(20)}) == 20
    # Known for good: the same on every machine.
    assert garble("甲乙丙丁戊己庚辛壬癸子丑", "seed") == "子庚壬丁辛丑癸甲己戊乙丙"


@pytest.mark.parametrize(
    "text", ["", "42", "北京", "答案是 B。", "好" * 100, "ha " * 50, "甲" * 11 + "乙"]
)
def test_what_cannot_be_damaged_enough_gives_nothing(text: str) -> None:
    assert garble(text, "a") == ""


@given(
    st.text(st.sampled_from("甲乙丙丁戊 abc12,。\n#-*`>\ud800"), max_size=80), st.text(max_size=3)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_changed_or_gives_nothing(text: str, seed: str) -> None:
    damaged = garble(text, seed)
    assert damaged != text or text == ""
    assert damaged in ("", garble(text, seed))
    if damaged:
        assert Counter(damaged) == Counter(text)
    if len(text) < FEWEST:
        assert damaged == ""
