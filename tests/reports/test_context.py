"""The table of context lengths as a person sees it: text to the letter, and a sound picture."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from qwen_eval.context_table import ContextTable, build
from qwen_eval.paper import tables
from qwen_eval.reports.context import context_text
from qwen_eval.reports.context_picture import context_picture
from qwen_eval.reports.plain import visible
from tests.harness.long_texts import PAPER, TRAINED, reading_runs, rows_named
from tests.harness.test_context_table import answered
from tests.reports.hostile import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"
LENGTHS = (1024, 2048, 4096, 8192)
GOLDEN = """\
m (float32), trained on 1,024 tokens of context

longppl_en: perplexity, 7 texts, by tokens of context
                                 1024     2048     4096     8192
base                            ##.##    ##.##   ###.##   ###.##
+ dynamic_ntk                   ##.##▲   ##.##▼   ##.##▼   ##.##▼
+ dynamic_ntk + logn            ##.##▲   ##.##▼▽  ##.##▼▽  ##.##▼▽
+ dynamic_ntk + logn + window   ##.##▲△  ##.##▼△  ##.##▼▽  ##.##▼▽
2 of 9 documents are shorter than 8,192 tokens and left out
▼ better than base, ▲ worse; ▽ △ than the row above: paired over the same texts, the 95% interval
excludes 0 and the exact test agrees (flipped signs, or McNemar's; p <= #.##)

difference at 8,192 tokens (nats per token, below 0 is better; 95% interval)
  + dynamic_ntk                  to base −#.#### (−#.#### … −#.####)
  + dynamic_ntk + logn           to base −#.#### (−#.#### … −#.####); to the row above −#.#### (−#.#### … −#.####)
  + dynamic_ntk + logn + window  to base −#.#### (−#.#### … −#.####); to the row above −#.#### (−#.#### … −#.####)

better than base for good from this position on, of 8,192
(what it saves from there to the end is largest; 95% interval by resampling texts)
  + dynamic_ntk                  1,024 (768 … 1,024)
  + dynamic_ntk + logn           896 (384 … 1,024)
  + dynamic_ntk + logn + window  1,024 (1,024 … 1,024)

unlike the paper, at 2,048 tokens + dynamic_ntk + logn + window is worse than + dynamic_ntk + logn: +#.#### (+#.#### … +#.####) nats per token
"""  # noqa: E501


def reading(**fields: Any) -> ContextTable:
    given: dict[str, Any] = {"count": 9, "short": {8192: 2}} | fields
    return build(reading_runs(**given), PAPER, ["longppl_en"], LENGTHS, TRAINED)


def answering() -> ContextTable:
    runs = {"base": answered("base", 0.5), "ntk": answered("ntk", 1.0)}
    return build(runs, rows_named("base", "ntk"), ["passkey_en"], (1024, 2048), TRAINED)


def test_the_text_to_the_letter() -> None:
    text = context_text(reading())
    assert re.sub(r"\d+(?=\.)|(?<=\.)\d+", lambda found: "#" * len(found[0]), text) == GOLDEN


def test_the_figures_in_the_text_are_those_of_the_table() -> None:
    table = reading()
    lines = context_text(table).splitlines()
    for row in PAPER:
        (line,) = (one for one in lines if re.match(rf"{re.escape(row.label)}  +\d", one))
        shown = re.findall(r"\d+\.\d\d", line)
        cells = [cell.perplexity for cell in table.blocks[0].cells[row.name].values()]
        assert shown == [f"{cell.estimate:.2f}" for cell in cells if cell]


def test_what_is_not_known_is_a_dash() -> None:
    text = context_text(reading(short={8192: 9}))
    assert re.search("^base( +-){4}$", text, re.MULTILINE)
    assert "9 of 9 documents are shorter than 8,192 tokens and left out" in text
    assert "difference" not in text


def test_few_texts_are_called_few() -> None:
    text = context_text(reading(count=4, short={}))
    assert "fewer than 6 texts prove nothing, so nothing is marked" in text
    assert not re.search(r"\d[▼▲▽△]", text)


def test_a_sample_is_never_called_the_benchmark() -> None:
    runs = {name: answered(name, 0.5) for name in ("base", "ntk")}
    info = runs["base"].info
    info.tasks.update({k: replace(v, data_kind="sample") for k, v in info.tasks.items()})
    table = build(runs, rows_named("base", "ntk"), ["passkey_en"], (1024, 2048), TRAINED)
    assert "passkey_en SAMPLE: right answers" in context_text(table)
    assert "passkey_en SAMPLE ·" in context_picture(table)


def test_one_row_is_compared_with_nothing() -> None:
    runs = reading_runs(count=3, rows=("base",))
    table = build(runs, rows_named("base"), ["longppl_en"], LENGTHS, TRAINED)
    assert len(context_text(table).splitlines()) == 5
    assert ElementTree.fromstring(context_picture(table)) is not None


def test_answers_are_percent_with_depths() -> None:
    text = context_text(answering())
    assert "passkey_en: right answers in percent, 20 questions, by tokens of context" in text
    assert re.search(r"^base +50\.0 +25\.0$", text, re.MULTILINE)
    assert re.search(r"^\+ dynamic_ntk +100\.0▲ +50\.0$", text, re.MULTILINE)
    assert "+ dynamic_ntk: right answers in percent, by depth" in text
    assert re.search(r"^  50 +50\.0 +30\.0$", text, re.MULTILINE)


def test_the_published_figures_stand_below_and_apart() -> None:
    published = [table for table in tables() if table.kind == "long-context"]
    plain, both = context_text(reading()), context_text(reading(), published)
    assert both.startswith(plain)
    for table in published:
        for model, cells in table.rows.items():
            (line,) = (one for one in both.splitlines() if one.startswith(f"{model}  "))
            assert [f"{figure:.2f}" for figure in cells.values()] == re.findall(r"\d+\.\d\d", line)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_picture_has_a_line_per_row_in_both_panels(language: str) -> None:
    table = reading()
    picture = context_picture(table, language="zh" if language == "zh" else "en")
    root = ElementTree.fromstring(picture)
    drawn = [g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("row ")]
    assert [g.get("class") for g in drawn] == [f"row k{i}" for i in (0, 1, 2, 3)] * 2
    for group in drawn:
        assert len(group.findall(f"{SVG}polyline")) == 1
    left, right = drawn[:4], drawn[4:]
    for row, group in zip(PAPER, left, strict=True):
        labels = [text.text for text in group.iter(f"{SVG}text")]
        assert labels == [row.label.replace("dynamic_ntk", "ntk")]
        assert len(group.findall(f"{SVG}path[@class='bar']")) == len(LENGTHS)
    assert not [group for group in right if group.findall(f"{SVG}path[@class='bar']")]
    assert picture.count('class="trained"') == 2
    assert ("Perplexity" in picture) is (language == "en")
    assert ("困惑度" in picture) is (language == "zh")
    assert picture == context_picture(reading(), language="zh" if language == "zh" else "en")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_every_place_lies_in_the_picture() -> None:
    root = ElementTree.fromstring(context_picture(reading()))
    for line in root.iter(f"{SVG}polyline"):
        places = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
        assert all(-10 <= x <= 246 and 0 <= y <= 220 for x, y in places)
        assert [x for x, _ in places] == sorted(x for x, _ in places)


def test_answers_have_a_grid_per_row() -> None:
    picture = context_picture(answering())
    root = ElementTree.fromstring(picture)
    cells = [g for g in root.iter(f"{SVG}g") if g.get("class") == "heat"]
    assert len(cells) == 2 * 2 * 2
    values = [text.text for cell in cells for text in cell.iter(f"{SVG}text")]
    assert values == ["50", "20", "50", "30", "100", "50", "100", "50"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_stays_text(text: str) -> None:
    runs = reading_runs(count=2, rows=("base", "ntk"))
    for run in runs.values():
        run.info.model["name"] = text
    table = build(runs, rows_named("base", "ntk"), ["longppl_en"], LENGTHS, TRAINED)
    picture = context_picture(table)
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "style", "rect", "g", "text", "line", "path"} | {
        "polyline",
        "circle",
    }
    assert visible(picture) == picture
    assert visible(context_text(table)) == context_text(table)
