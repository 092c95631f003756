"""What stands where on a page: every figure in its own place, and the notes that belong to it."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen_eval.compare import Flip, compare_runs
from qwen_eval.metrics import summarise
from qwen_eval.reports import drawings
from qwen_eval.reports.flips import changed_answers
from qwen_eval.reports.notes import near_figures
from qwen_eval.reports.plain import one_line, visible
from qwen_eval.reports.samples import pack
from qwen_eval.reports.view import Fact, build
from qwen_eval.results import Run
from tests.harness.toys import record, task_info
from tests.reports.runs import a_run, answers
from tests.reports.test_ci import EVERY
from tests.reports.test_honesty import of_tasks, section
from tests.reports.test_report import Reader, unpacked, written


def cells(html: str, part: str, title: str) -> list[str]:
    """The texts of a table's row, by the section that it is in and the name that it begins with."""
    body = html[html.index(f'id="{part}"') :].partition("</section>")[0]
    row = next(row for row in body.split("<tr")[1:] if f'scope="row">{title}' in row)
    return [" ".join(Reader(cell).text.split()) for cell in row.split("<td")[1:]]


def of_mmlu(**fields: Any) -> Run:
    infos = {"mmlu@strict": task_info(recipe="mmlu@strict", **fields)}
    return a_run([record(0, task="mmlu@strict")], tasks=infos)


def finished(folder: Path, run: Run, **metrics: Any) -> Run:
    """The same run with a metrics.json that says something else."""
    said = {
        name: summarise(name, info.metric, list(run.of(name).values())).to_json() | metrics
        for name, info in run.info.tasks.items()
    }
    (folder / "metrics.json").write_text(json.dumps({"tasks": said}))
    return replace(run, folder=folder, finished=True)


def test_every_count_is_in_its_column() -> None:
    ended = {"finish_reason": "length"}
    records = [
        *(record(i) for i in range(40)),
        record(40, 0.0, status="no_answer"),
        *(record(i, responses=[{"prompt_truncated": True}]) for i in (41, 42)),
        *(record(i, responses=[ended]) for i in (43, 44, 45)),
        *(record(i, status="error") for i in (46, 47, 48, 49)),
    ]
    html = written([a_run(records)])
    row = [cell.partition(">")[2] for cell in cells(html, "scores", "m float32")]
    assert row[-6:-1] == ["50", "1", "2", "3", "4"]


def test_costs_are_sums_over_the_starts_and_ratios_of_them() -> None:
    starts = [
        {"started": "then", "seconds": 3.0, "samples": 6, "tokens": 900, "peak_memory": 2**30},
        {"started": "later", "seconds": 1.0, "samples": 4, "tokens": 100, "peak_memory": 2**29},
    ]
    reply = [{"prompt_tokens": 700, "output_tokens": 30}]
    html = written([a_run(answers("11", responses=reply), invocations=starts)])
    row = [cell.partition(">")[2] for cell in cells(html, "cost", "m float32")]
    assert row == ["0:04", "2", "2.50", "250", "1,400", "60", "1 GiB"]


def test_p_values_are_holms_wherever_they_stand() -> None:
    """Six lost and none gained: two-sided 2 / 64; of two such tasks, twice that."""
    a = of_tasks("a", x="1" * 40, y="1" * 40)
    b = of_tasks("b", x="0" * 6 + "1" * 34, y="0" * 6 + "1" * 34)
    html = written([a, b])
    assert "No difference shown on any of 2" in section(html, "verdict")
    assert cells(html, "differences", "x")[4].partition(">")[2] == "0.062"
    alone = written([of_tasks("a", x="1" * 40), of_tasks("b", x="0" * 6 + "1" * 34)])
    assert "worse, p 0.031" in section(alone, "verdict")


def test_the_verdicts_colour_is_its_meaning() -> None:
    good, bad = "1" * 60, "0" * 20 + "1" * 40
    for before, after, colour in ((good, bad, "bad"), (bad, good, "good"), (good, good, "")):
        html = written([of_tasks("a", x=before), of_tasks("b", x=after)])
        assert re.findall('<div class="verdict ([a-z]*)">', html)[0] == colour
        other = written([of_tasks("a", x=before, y="1"), of_tasks("b", x=after)])
        assert re.findall('<div class="verdict ([a-z]*)">', other)[0] == (
            "bad" if colour == "bad" else "warn"
        )


def test_intervals_are_at_the_level_asked_for() -> None:
    a, b = a_run(answers("1110111101"), "a"), a_run(answers("0110110101"), "b")
    (pair,) = build([a, b], alpha=0.2).pairs
    (expected,) = compare_runs(a, b, allow=("unfinished",), alpha=0.2)
    assert pair.tasks[0].paired == expected.paired


def test_few_groups_show_no_drop_however_many_items() -> None:
    runs = [a_run(answers(v * 10, group=lambda i: f"g{i % 4}"), v) for v in ("1110", "1101")]
    assert "so few show no drop" in section(written(runs), "verdict")


def test_a_finished_runs_own_scores_are_shown(tmp_path: Path) -> None:
    said = {"n": 4, "estimate": 0.125, "low": 0.1, "high": 0.2, "method": "told"}
    run = finished(tmp_path, a_run(answers("1100")), overall=said, categories={"stem": said})
    html = written([run])
    assert "12.5" in section(html, "scores")
    assert "– stem" in section(html, "scores")
    parts = {"others": {"false_positive": said}, "macro": said, "groups": {"a": said, "b": said}}
    html = written([finished(tmp_path, run, overall=said, **parts)])
    assert "– false_positive less is better" in section(html, "scores")
    assert "– mean of 2 groups" in section(html, "scores")
    invalid = finished(tmp_path, run, overall=said, categories={"stem": said}, invalid=["errors"])
    assert "12.5" not in Reader(written([invalid])).text
    assert "still to come" not in html


def test_what_is_left_is_what_was_asked_less_what_is_there() -> None:
    run = a_run(answers("11"), task={"selected": 5})
    assert build([run]).runs[0].left == 3


def test_a_fact_differs_wherever_it_differs() -> None:
    assert Fact("x", ("a", "b", "a")).differs
    assert not Fact("x", ("a", "a", "a")).differs


def test_caveats_are_said_once_and_only_where_they_hold() -> None:
    runs = [a_run(answers("11"), name, task={"available": 9, "solver": "code"}) for name in "ab"]
    said = section(written(runs), "verdict")
    assert said.count("2 of 9 samples, a fixed random draw") == 1
    assert said.count("Programs ran under: none needed") == 1
    plain = section(written([a_run(answers("11"))]), "verdict")
    for phrase in ("random draw.toy", "Programs ran", "SAMPLE"):
        assert phrase not in plain
    package = written([a_run(answers("11"), task={"data_kind": "package"})])
    assert "SAMPLE" not in Reader(package).text
    assert (
        "SAMPLE questions"
        in Reader(written([a_run(answers("1"), task={"data_kind": "sample"})])).text
    )


def test_a_published_figure_stands_beside_its_own_protocol() -> None:
    five = build([of_mmlu(shots=5)])
    assert {figure.shots for figure in near_figures(five, "mmlu@strict")} == {5}
    said = section(written([of_mmlu(shots=5)]), "scores")
    assert "5-shot here" not in said
    assert "recipe of qwen-eval here, of the task's released script there" in said
    assert "3-shot here, 5-shot there" in section(written([of_mmlu(shots=3)]), "scores")


def test_an_invalid_score_does_not_stretch_the_axis() -> None:
    valid, invalid = a_run(answers("1" * 50), "a"), a_run(answers("0" + "-" * 49), "b")
    report = build([valid, invalid])
    assert drawings.scale(report, "toy@strict", []).low > 80


def test_shares_by_length_are_a_curve_in_the_order_of_lengths() -> None:
    lengths = ("512", "1024", "2048", "4096")
    run = a_run([record(i, float(i % 8 > 1), group=lengths[i % 4]) for i in range(16)])
    html = written([run])
    assert 'id="groups"' not in html
    (line,) = re.findall('<polyline class="line" points="([^"]*)"', html)
    across = [float(point.partition(",")[0]) for point in line.split()]
    assert across == sorted(across)
    assert len(across) == 4
    (band,) = re.findall('<polygon class="band" points="([^"]*)"', html)
    around = [float(point.partition(",")[0]) for point in band.split()]
    assert around == [*across, *reversed(across)], "a band that does not cross itself"


def test_what_noise_explains_comes_last_and_is_marked() -> None:
    def flip(number: int, before: float, *, noisy: bool) -> Flip:
        return Flip(f"{number:04x}", "g", before, 1 - before, ("1", "2"), "1", noisy, before == 1)

    flips = [flip(0, 1.0, noisy=True), flip(1, 0.0, noisy=False), flip(2, 1.0, noisy=False)]
    records = {f"{i:04x}": record(i) for i in range(3)}
    shown = [one.flip.id for one in changed_answers(flips, records, records)]
    assert shown == ["0002", "0001", "0000"]
    close = [{"logprobs": [-1.25, -1.25001], "finish_reason": "scored"}]
    runs = [a_run(answers(v, responses=close, detail={"margin": 1e-5}), v) for v in ("1", "0")]
    html = written(runs)
    assert "1 of 1 changed answers lie inside numeric noise" in section(html, "verdict")
    assert "inside numeric noise" in section(html, "flips")
    assert "log-probabilities of the options : -1.250, -1.250" in section(html, "flips").replace(
        "options:", "options :"
    )


def test_the_browser_has_margins_and_what_went_wrong() -> None:
    records = [
        record(0, detail={"margin": 0.25}),
        record(1, status="error", error="server down", answer=None),
    ]
    found = unpacked(written([a_run(records)]))
    assert [sample[6][0][4] for sample in found["samples"]] == [0.25, None]
    assert [sample[6][0][2] for sample in found["samples"]] == ["1", "server down"]


def test_what_is_packed_holds_no_time() -> None:
    packed = base64.b64decode(pack([a_run(answers("1"))], ["m"])[1])
    assert packed[4:8] == b"\0\0\0\0", "RFC 1952: MTIME"


def test_the_policy_is_as_strict_as_it_can_be() -> None:
    (policy,) = re.findall(
        'Content-Security-Policy" content="([^"]*)"', written([a_run(answers("1"))])
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    kept = {name: rules.pop(name) for name in ("style-src", "script-src")}
    assert all(re.fullmatch(r"'sha256-[\w+/=]{44}'", rule) for rule in kept.values())
    none = dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")
    assert rules == none | {"img-src": "data:"}


def test_a_verdicts_warnings_and_quarantine_are_shown() -> None:
    said = section(written([a_run(answers("1"))], gate=EVERY), "verdict")
    assert "In quarantine: toy 77e0 (2026-12-31, two answers)old" in said


def test_every_acting_character_is_shown() -> None:
    """Controls, half characters, line and paragraph separators, and what turns a line around."""
    turning = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    for code in range(0x110000):
        character = chr(code)
        acts = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        if (acts or unicodedata.bidirectional(character) in turning) and character not in "\t\n":
            assert character not in visible(character), hex(code)
    assert visible("plain 你好 é\t\n🏴") == "plain 你好 é\t\n🏴"
    assert one_line("x" * 600) == "x" * 499 + "…"
