"""The figure, read as XML: shares as widths, the paper's bars, hostile names."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.analysis.votes import Vote
from qwen_eval.human_eval_ui.findings.figure import (
    NET,
    OURS,
    PUBLISHED,
    TEMPLATES,
    THEIRS,
    figure4,
)
from qwen_eval.human_eval_ui.findings.findings import Findings, findings
from qwen_eval.paper import published
from tests.human_eval_ui.studies import styled

SVG = "{http://www.w3.org/2000/svg}"
STUDY = styled(np.random.default_rng(1), 30, 2, {"sft": (0.4, 0.2, 0.4), "dpo": (0.2, 0.2, 0.6)})


@pytest.fixture(scope="module")
def found() -> Findings:
    return findings(STUDY, "base")


def bars(svg: str, kind: str) -> list[ET.Element]:
    return [g for g in ET.fromstring(svg).iter(f"{SVG}g") if g.get("class") == kind]


def widths(bar: ET.Element) -> dict[str, float]:
    drawn = {str(rect.get("class")): rect.get("width") for rect in bar.iter(f"{SVG}rect")}
    return {kind: float(drawn.get(kind) or 0) for kind in ("win", "tie", "lose")}


def texts(element: ET.Element) -> list[str]:
    return [text.text or "" for text in element.iter(f"{SVG}text")]


def test_widths_are_shares_and_ends_are_intervals(found: Findings) -> None:
    svg = figure4(found)
    drawn = bars(svg, "ours")
    order = [None, "knowledge", "understanding", "writing", "mathematics", "coding"]
    expected = [one for c in order for one in found.shares if one.category == c]
    assert len(drawn) == len(expected) == 12
    # The axis is the same for all: what its end stands for is told by any bar.
    (reach,) = {
        round(float(tick[1:]) / 100, 2) for tick in texts(ET.fromstring(svg)) if tick in _ENDS
    }
    for bar, one in zip(drawn, expected, strict=True):
        shares = {"win": one.win.value, "tie": one.tie.value, "lose": one.lose.value}
        assert widths(bar) == pytest.approx({k: OURS * v for k, v in shares.items()}, abs=0.01)
        said = texts(bar)
        assert said[0] == one.system
        assert f"{one.items} · {one.votes}" in said
        assert ("†" in said) is one.few
        line = next(str(p.get("d")) for p in bar.iter(f"{SVG}path"))
        low, high = (float(x) for x in line.removeprefix("M").replace(" 0H", " ").split())
        for place, share in ((low, one.net.low), (high, one.net.high)):
            assert place == pytest.approx(NET / 2 * (1 + share / reach), abs=0.06)


_ENDS = {f"+{end}" for end in (20, 40, 60, 80, 100)}


def test_the_papers_bars_are_its_figures(found: Findings) -> None:
    drawn = bars(figure4(found), "theirs")
    keys = [None, "knowledge", "language_understanding", "creative_writing", "math", "coding"]
    assert len(drawn) == 4 * len(keys)
    for i, bar in enumerate(drawn):
        figures = published("human300", keys[i // 4])
        model = texts(bar)[0]
        own = {f.metric: f.value for f in figures if f.model == model}
        got = widths(bar)
        assert sum(got.values()) == pytest.approx(THEIRS, abs=0.02)
        total = sum(own.values())  # a hundred, but for rounding
        assert got["win"] == pytest.approx(THEIRS * own["win"] / total, abs=0.01)
        assert got["lose"] == pytest.approx(THEIRS * own["loss"] / total, abs=0.01)
        assert f"{own['win']:.1f}" in texts(bar)
        assert f"{own['win'] - own['loss']:+.1f}".replace("-", "−") == texts(bar)[-1]
        assert not list(bar.iter(f"{SVG}circle"))  # no intervals
    text = " ".join(texts(ET.fromstring(figure4(found))))
    assert "other models, other instructions, no intervals" in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_hostile_names_are_text_and_reach_nothing(language: str) -> None:
    hostile = "</text><script>alert(1)</script>&\"'\x1b\u202e\ud800"
    votes = [
        replace(v, left=v.left.replace("sft", hostile), right=v.right.replace("sft", hostile))
        for v in STUDY
    ]
    votes = [
        replace(v, category="<b>&\x00" if v.category == "coding" else v.category) for v in votes
    ]
    svg = figure4(findings(votes, hostile), language=language)  # type: ignore[arg-type]
    root = ET.fromstring(svg.encode())
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        *("svg", "title", "style", "rect", "text", "g", "path", "circle", "line")
    }
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "\u202e" not in svg
    assert any("<b>&�" in text for text in texts(root))


def test_both_languages_say_all(found: Findings) -> None:
    chinese = figure4(found, language="zh")
    said = texts(ET.fromstring(chinese))
    for word in ("平均", "知识", "语言理解", "创意写作", "数学", "编程", "胜", "平", "负"):
        assert word in said
    known = json.loads((TEMPLATES / "zh.json").read_text(encoding="utf-8"))
    source = (TEMPLATES / "figure4.svg").read_text(encoding="utf-8")
    source += (TEMPLATES.parent / "figure.py").read_text(encoding="utf-8").replace("say(", "_(")
    wanted = set(re.findall(r"""_\(\s*"([^"]+)\"""", source)) | {"win", "tie", "lose"}
    assert wanted | {title for _, title in PUBLISHED.values()} == known.keys()
    for english, translated in known.items():
        assert set(re.findall(r"%\(\w+\)s", english)) == set(re.findall(r"%\(\w+\)s", translated))


def test_the_same_findings_are_the_same_bytes(found: Findings) -> None:
    assert figure4(found) == figure4(replace(found))


def test_a_category_that_the_paper_has_not_is_drawn_alone() -> None:
    votes = [replace(v, category="translation") for v in STUDY]
    svg = figure4(findings(votes, "base"))
    assert "not in the paper" in svg
    assert len(bars(svg, "ours")) == len(bars(svg, "theirs")) == 4


def test_one_vote_is_drawn_and_no_baseline_is_refused() -> None:
    vote = Vote("i", "coding", "a", "x", "y", 1)
    svg = figure4(findings([vote], "x"))
    assert widths(bars(svg, "ours")[0]) == {"win": OURS, "tie": 0, "lose": 0}
    with pytest.raises(UserError, match="baseline"):
        figure4(findings([vote], None))
