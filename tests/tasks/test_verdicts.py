"""A judge's verdict: the last mark, whatever stands around it, and none where it contradicts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.tasks.scorers.verdicts import CHOICES, verdict
from qwen_eval.taskspec import TASKS_DIR, load_spec

TURNED = str.maketrans("AB<>", "BA<>")


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("回答 A 更完整。\n[[A>B]]", -1),
        ("[[A>>B]]", -2),
        ("At first [[A>B]], but\non the whole **[[B>>A]]**\n\n", 2),
        ("［［Ａ＝Ｂ］］", 0),
        ("[[ B > A ]].", 1),
        ("[[A<B]]", 1),
        ("[[A<<B]]", 2),
        ("[[B=A]]", 0),
        ("[[A>B]] [[A>B]]", -1),
        ("[[A<B]] or, the same, [[B>A]]", 1),
        ("[[A>B]]\nSo A it is.", -1),
        ("", None),
        ("A>B", None),
        ("[A>B]", None),
        ("[[A]]", None),
        ("[[A>A]]", None),
        ("[[A>>>B]]", None),
        ("[[A>B]] [[B>A]]", None),
        ("[[A>B]]\nor [[A>>B]] or [[A=B]]", None),
        ("[[A>B]]\n[[A>", -1),
    ],
)
def test_the_last_mark_counts(reply: str, choice: int | None) -> None:
    score = verdict(reply, "", "verdict")
    assert score.detail.get("choice") == choice
    assert score.values == {"verdict": float(choice is not None)}
    assert score.status == ("no_answer" if choice is None else "scored")


@given(st.text(), st.sampled_from(sorted(CHOICES)))
def test_a_mark_at_the_end_is_read_behind_any_text(before: str, mark: str) -> None:
    score = verdict(f"{before}\n[[{mark}]]", "", "verdict")
    assert (score.answer, score.detail["choice"]) == (mark, CHOICES[mark])
    turned = verdict(f"{before}\n[[{mark.translate(TURNED)}]]", "", "verdict")
    assert turned.detail["choice"] == -CHOICES[mark]


@pytest.mark.parametrize("recipe", ["strict", "en"])
def test_the_judge_is_told_just_these_marks(recipe: str) -> None:
    spec = load_spec(TASKS_DIR / "judging" / "pairwise" / "task.yaml")
    told = re.findall(r"^\[\[(.+?)\]\]", spec.recipes[recipe].item, re.MULTILINE)
    assert told == list(CHOICES)
    assert [CHOICES[mark] for mark in told] == [-2, -1, 0, 1, 2]
    assert verdict(spec.reference, "", "verdict").status == "scored"
