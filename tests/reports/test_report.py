"""The page itself: whole, inert, in both languages, the same bytes for the same runs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.protocol import SENTENCES, UNPUBLISHED
from qwen_eval.reports import render
from qwen_eval.reports.outcome import OUTCOMES
from qwen_eval.reports.plain import visible
from qwen_eval.reports.render import SampleSet, island, page, samples_page, speaker
from qwen_eval.reports.samples import pack
from qwen_eval.reports.view import build
from qwen_eval.results import Run
from tests.harness.toys import record, task_info
from tests.reports.hostile import HOSTILE
from tests.reports.runs import a_run, answers
from tests.reports.test_ci import EVERY, verdict

ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        """html head meta link title style body header main footer nav section h1 h2 h3 p a div span
        strong b small ul li table thead tbody tr th td svg line circle path rect text g polygon
        polyline details summary pre code del ins label input select option button i br script""",
    )
)


class Reader(HTMLParser):
    """Elements with their attributes, texts, and what stands in script and style."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.raw:
            self.raw[self._inside][-1] += data
        else:
            self.text += data


def two(**fields: Any) -> list[Run]:
    """Two runs that differ, with replies."""
    reply = {"responses": lambda i: [{"text": f"It is {i}.", "finish_reason": "stop"}]}
    return [
        a_run(answers("1101-1", **reply, **fields), "a"),
        a_run(answers("0111-1", **reply, **fields), "b"),
    ]


def written(runs: list[Run], **more: Any) -> str:
    report = build(runs, gate=more.pop("gate", None))
    count, packed = pack(runs, [run.label for run in report.runs])
    return page(report, SampleSet(count, packed), **more)


def unpacked(html: str) -> dict[str, Any]:
    (packed,) = re.findall(r'id="packed">([^<]*)</script>', html)
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return found


def hostile_runs(text: str) -> list[Run]:
    """The text in every field that a model, a data set, a file or a server may fill."""

    def one(value: float) -> Any:
        return record(
            0, value, id=text, task=text, group=text, target=text, text=text, answer=text,
            prefix="p", responses=[{"text": f"{text} {value}", "finish_reason": "length"}],
            detail={"verdict": text},
        )  # fmt: skip

    infos = {text: task_info(recipe=text, metric="accuracy", solver="code", data_kind="sample",
                             protocol=text, scorer=text)}  # fmt: skip
    runs = []
    for value in (1.0, 0.0):
        model = {"name": text, "dtype": text, "fingerprint": f"{value}", "detail": {"note": text}}
        other = record(1, 0.0, task=text, status="error", error=text, group=text + "2")
        runs.append(
            Run(Path(f"runs/{value}") / text.replace("/", "").replace("\0", ""),
                a_run([], tasks=infos, model=model, isolation=text, settings={text: text},
                      environment={text: text}, invocations=[{"started": text}]).info,
                [one(value), other], finished=False, prefixes={"p": text})
        )  # fmt: skip
    return runs


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_text_says_it_stays_text(text: str) -> None:
    told = {"rule": {"type": text, "task": text}, "verdict": "FAIL", "message": text}
    held = {"task": text, "item": text, "until": text, "reason": text}
    gate = verdict(told, quarantine=[held], warnings=[text])
    html = written(hostile_runs(text), gate=gate)
    harmless = written(hostile_runs("plain"), gate=verdict(
        told | {"rule": {"type": "plain", "task": "plain"}, "message": "plain"},
        quarantine=[dict.fromkeys(held, "plain")], warnings=["plain"]))  # fmt: skip
    found, plain = Reader(html), Reader(harmless)
    assert [
        tag for tag, _ in found.elements if tag in ("script", "style", "link", "meta", "a")
    ] == [tag for tag, _ in plain.elements if tag in ("script", "style", "link", "meta", "a")]
    for tag, attributes in found.elements:
        assert tag in ELEMENTS
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src"):
            assert re.fullmatch("data:,|#[a-z]+", attributes.get(name) or "#a")
    assert visible(found.text) == found.text, "a control character acts"
    html.encode("utf-8")  # no lone surrogate is left
    assert " ".join(visible(text).split())[:20] in " ".join(found.text.split())
    packed = unpacked(html)
    assert packed["samples"][0][5] == visible(text)
    assert packed["prefixes"][0] == visible(text)


def test_only_its_own_style_and_script_may_run() -> None:
    html = written(two())
    found = Reader(html)
    (policy,) = [
        str(a["content"]) for tag, a in found.elements
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    for kind, text in (("style", found.raw["style"][0]), ("script", found.raw["script"][-1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    before_policy = html[: html.index("Content-Security-Policy")]
    assert "<style" not in before_policy
    assert "<script" not in before_policy


def test_the_same_runs_give_the_same_bytes() -> None:
    assert written(two(), gate=EVERY) == written(two(), gate=EVERY)


def test_the_verdict_comes_first() -> None:
    html = written(two(), gate=EVERY)
    text = Reader(html).text
    places = [text.index(word) for word in ("Gate: FAIL", "No difference shown", "95% interval")]
    assert places == sorted(places)


def test_a_proven_drop_is_called_worse() -> None:
    a, b = a_run(answers("1" * 60), "a"), a_run(answers("0" * 12 + "1" * 48), "b")
    text = Reader(written([a, b])).text
    assert "Worse on 1 of 1" in text
    assert "−20.0" in text
    assert "Better on 1 of 1" in Reader(written([b, a])).text


def test_flips_show_both_replies_and_what_differs() -> None:
    html = written(two())
    changed = html[html.index('id="flips"') : html.index('id="outcomes"')]
    assert changed.count("<details>") == 2
    texts = [
        answers("1", responses=[{"text": t, "finish_reason": "stop"}]) for t in ("a cat", "a dog")
    ]
    texts[1][0].values["accuracy"] = 0.0
    html = written([a_run(texts[0], "a"), a_run(texts[1], "b")])
    assert "<pre>a <del>cat</del></pre>" in html
    assert "<pre>a <ins>dog</ins></pre>" in html


def test_every_sample_is_in_the_browser_with_both_results() -> None:
    runs = two()
    found = unpacked(written(runs))
    assert [sample[1] for sample in found["samples"]] == [s.id for s in runs[0].samples]
    for place, run in enumerate(runs):
        ends = [found["outcomes"][sample[6][place][1]] for sample in found["samples"]]
        right = [sample[6][place][0] for sample in found["samples"]]
        assert right == [s.values["accuracy"] for s in run.samples]
        assert ends[4] == "no answer"
    assert found["prefixes"] == ["Few shots. "]


def test_a_long_text_is_cut_and_says_how_much_is_missing() -> None:
    run = a_run(answers("1", text="x" * 10_000))
    assert unpacked(written([run]))["samples"][0][5] == "x" * 4000 + "… (+6,000)"


def test_an_invalid_score_is_not_printed() -> None:
    html = written([a_run(answers("11----"))])
    assert "no_answer 67% &gt; 20%" in html
    for section in ("verdict", "scores"):
        assert "33.3" not in html[html.index(f'id="{section}"') :].partition("</section>")[0]


def test_lengths_are_a_curve_and_subjects_a_map() -> None:
    lengths = [
        record(i, group=str(1024 * 2 ** (i % 4)), values={"log_likelihood": -1.5 - 0.1 * (i % 4)})
        for i in range(12)
    ]
    html = written([a_run(lengths, task={"metric": "log_likelihood"})])
    assert html.count("<polyline") == 1
    assert "4.48" in html, "exp(1.5)"
    assert 'id="groups"' not in html
    subjects = [record(i, group=f"subject_{i % 3}") for i in range(9)]
    html = written([a_run(subjects)])
    assert "subject 2" in html
    assert "<polyline" not in html


@pytest.mark.parametrize(
    "groups",
    [
        ("1", "2", "5"),
        ("2019", "2021", "2024"),
        ("064", "128", "256"),
        ("100", "200", "9" * 5000),
        ("100", "200", "²00"),
    ],
)
def test_groups_named_like_numbers_are_no_lengths(groups: tuple[str, ...]) -> None:
    html = written([a_run([record(i, group=groups[i % 3]) for i in range(9)])])
    assert "<polyline" not in html
    assert 'id="groups"' in html


def test_judgements_are_bars() -> None:
    values = {"accuracy": 0.5, "win": 0.25, "tie": 0.5, "loss": 0.25}
    votes = [record(i, group="code", values=values) for i in range(4)]
    html = written([a_run(votes)])
    judged = html[html.index('id="judged"') :]
    widths = re.findall(r'<rect class="o\d" x="[\d.]+" y="1" width="([\d.]+)"', judged)
    assert widths[:3] == ["75.0", "150.0", "75.0"]


def test_a_report_without_its_samples_is_small() -> None:
    tasks = [f"t{i}@strict" for i in range(6)]
    infos = {name: task_info(recipe=name, selected=570, available=570) for name in tasks}
    runs = [
        a_run([record(i, float((i * 7 + k) % 3 > 0), task=name, group=f"subject_number_{i % 57}",
                      responses=[{"text": "word " * 400 + str(k), "finish_reason": "stop"}])
               for name in tasks for i in range(570)], str(k), tasks=infos)
        for k in range(2)
    ]  # fmt: skip
    report = build(runs)
    assert len(page(report, SampleSet(3420, link="r-samples.html")).encode()) < 300 * 1024


def test_no_text_however_long_is_the_whole_page() -> None:
    long = "x" * 5_000_000
    runs = [
        a_run([record(i, value, group=f"{long}{i % 2}", text=long, target=long, answer=long,
                      responses=[{"text": long, "finish_reason": "stop"}]) for i in range(3)],
              "m" + long + name, isolation=long)
        for name, value in (("a", 1.0), ("b", 0.0))
    ]  # fmt: skip
    assert len(written(runs).encode()) < 300 * 1024
    assert "… (+" in written(runs)


def test_the_page_beside_is_linked_by_a_plain_relative_name() -> None:
    report = build(two())
    html = page(report, SampleSet(9, link="a b&c-samples.html"))
    links = [a["href"] for tag, a in Reader(html).elements if tag == "a"]
    assert "a%20b%26c-samples.html" in links
    beside = samples_page(report, pack(two(), "ab")[1], "r.html")
    assert [a["href"] for tag, a in Reader(beside).elements if tag == "a"] == ["r.html"]
    assert len(unpacked(beside)["samples"]) == 6


def test_watching_it_reads_itself_again() -> None:
    assert 'http-equiv="refresh" content="5"' in written(two(), refresh=5)
    assert 'http-equiv="refresh"' not in written(two())
    assert "unfinished, 0 samples to come" in Reader(written(two())).text


def sentences() -> set[str]:
    """Every English text that the page may say."""
    found: set[str] = set(OUTCOMES) | set(render._BROWSER_WORDS.values())
    found |= {"exact McNemar", "clustered", "bootstrap", "Table", "Figure", "same", "points"}
    found |= set(SENTENCES.values()) | set(UNPUBLISHED.values()) | {"plain number"}
    for unit in ("perplexity", "bits per byte", "nats per token", "number"):
        found |= {unit, f"{unit}, less is better"}
    for path in render.TEMPLATES.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        found |= {a or b for a, b in re.findall(r"""_\((?:"([^"]+)"|'([^']+)')""", text)}
    for path in render.TEMPLATES.parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'say\(\s*"([^"]+)"', text))
        found |= set(re.findall(r'^        \("\w+", "([^"]+)", ', text, re.MULTILINE))
    return found


def test_chinese_is_complete_and_keeps_every_place() -> None:
    known = json.loads((render.TEMPLATES / "zh.json").read_text(encoding="utf-8"))
    assert sentences() - known.keys() == set()
    assert known.keys() - sentences() == set(), "said nowhere any more"
    places = re.compile(r"%\(\w+\)s|\{\w+\}")
    for english, chinese in known.items():
        assert sorted(places.findall(english)) == sorted(places.findall(chinese)), english


def test_a_chinese_page_is_chinese() -> None:
    html = written(two(), gate=EVERY, language="zh")
    assert '<html lang="zh">' in html
    text = Reader(html).text
    for word in ("结论", "得分", "差异", "未显示差异", "来源记录"):
        assert word in text
    for word in ("Scores", "Provenance", "not told apart"):
        assert word not in text


def test_islands_cannot_be_left() -> None:
    for text in HOSTILE:
        found = island({"x": text})
        assert not set("<>&\u2028\u2029") & set(found)
        assert json.loads(found) == {"x": text}
    assert speaker("en")("50% of it") == "50% of it"


def of_every_kind() -> list[Run]:
    """Two runs whose page has every section: subjects, lengths, judgements, published figures."""
    runs = []
    for k, name in enumerate("ab"):
        reply = [{"text": f"It is {k}.", "finish_reason": "stop"}]
        records = [
            record(
                i, float((i + k) % 3 > 0), task="mmlu@strict", group=f"s{i % 4}", responses=reply
            )
            for i in range(24)
        ]
        records += [
            record(i, task="long", group=str(1024 * 2 ** (i % 3)),
                   values={"log_likelihood": -2.0 - i / 9 - k})
            for i in range(9)
        ]  # fmt: skip
        votes = {"win": 0.5, "tie": 0.25, "loss": 0.25, "accuracy": 0.5}
        records += [record(i, task="human", group=f"t{i % 2}", values=votes) for i in range(4)]
        infos = {
            "mmlu@strict": task_info(recipe="mmlu@strict", shots=5),
            "long": task_info(recipe="long", metric="log_likelihood"),
            "human": task_info(recipe="human"),
        }
        runs.append(a_run(records, name, tasks=infos))
    return runs


def test_tables_charts_and_headings_are_told_to_those_who_do_not_see_them() -> None:
    for language in ("en", "zh"):
        html = written(of_every_kind(), gate=EVERY, language=language)
        found = Reader(html)
        sections = {a["id"] for tag, a in found.elements if tag == "section"}
        assert {
            "verdict",
            "scores",
            "differences",
            "flips",
            "judged",
            "lengths",
            "groups",
        } <= sections
        for tag, attributes in found.elements:
            if tag == "th":
                assert attributes.get("scope") in ("col", "row", "rowgroup")
            if tag == "svg":
                assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]
        assert "<th></th>" not in html
        levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        # The verdict is the first heading behind the title.
        assert re.search(r"</h1>.*?<h2>(.*?)</h2>", html, re.DOTALL)[1].endswith(": FAIL")  # type: ignore[index]
