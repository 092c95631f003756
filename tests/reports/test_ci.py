"""A verdict as CI systems read it: valid, complete, and inert whatever the texts hold."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.reports import ci
from qwen_eval.reports.plain import one_line, visible
from tests.reports.hostile import HOSTILE


def verdict(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    side = {"folder": "runs/a", "name": "m", "fingerprint": "f", "dtype": "float32"}
    rows = [
        {"rule": {"type": "floor", "task": "toy"}, "verdict": "PASS", "message": "fine",
         "blocking": True, "figures": {}} | rule
        for rule in rules
    ]  # fmt: skip
    whole = {"verdict": "FAIL", "exit_code": 1, "baseline": side, "candidate": side}
    rest = {"alpha": 0.05, "inconclusive": "warn", "quarantine": [], "warnings": [], "schema": 1}
    return whole | rest | {"rules": rows} | more


EVERY = verdict(
    {},
    {"verdict": "FAIL", "message": "worse"},
    {"verdict": "FAIL", "message": "worse, not blocking", "blocking": False},
    {"verdict": "INCONCLUSIVE", "message": "cannot tell"},
    {"verdict": "ERROR", "rule": {"type": "ratio", "figure": "tokens_per_second"}},
    quarantine=[{"task": "toy", "item": "77e0", "until": "2026-12-31", "reason": "two answers"}],
    warnings=["old"],
)


def outcomes(text: str) -> dict[str, list[str]]:
    """By suite, the word of every case."""
    suites = ET.fromstring(text.encode())
    return {
        suite.get("name", ""): [next((child.tag for child in case), "ok") for case in suite]
        for suite in suites
    }


def test_junit_has_a_suite_per_task_and_a_case_per_rule() -> None:
    found = ci.junit(EVERY)
    assert outcomes(found) == {
        "toy": ["ok", "failure", "skipped", "skipped", "skipped"],
        "run": ["error"],
    }
    toy = ET.fromstring(found.encode())[0]
    counts = [toy.get(key) for key in ("tests", "failures", "errors", "skipped")]
    assert counts == ["5", "1", "0", "3"]


def test_inconclusive_is_a_failure_where_it_fails() -> None:
    strict = EVERY | {"inconclusive": "fail"}
    assert outcomes(ci.junit(strict))["toy"][3] == "failure"
    assert sum(line.startswith("::error") for line in ci.github_commands(strict)) == 3
    assert sum(line.startswith("::error") for line in ci.github_commands(EVERY)) == 2


def test_no_more_annotations_than_are_shown() -> None:
    many = verdict(*({"verdict": "FAIL"} for _ in range(30)))
    assert len(list(ci.github_commands(many))) == 10


def test_the_text_says_the_verdict_first() -> None:
    lines = ci.text(EVERY).splitlines()
    assert lines[0].startswith("FAIL  m float32 (runs/a) → ")
    assert any("quarantined until 2026-12-31: toy 77e0, two answers" in line for line in lines)
    assert lines[-1] == "  warning: old"


def test_a_long_summary_is_cut_by_rows_and_says_so() -> None:
    many = verdict(*({"message": "x" * 400} for _ in range(300)))
    whole, cut = ci.summary(many), ci.summary(many, 20_000)
    assert len(cut.encode()) <= 20_000 < len(whole.encode())
    shown = cut.count("| PASS |")
    assert f"{300 - shown} more rules are not shown." in cut


def test_hostile_texts_are_inert_everywhere() -> None:
    for text in HOSTILE:
        told = {"rule": {"type": text, "task": text}, "verdict": "FAIL", "message": text}
        held = {"task": text, "item": text, "until": text, "reason": text}
        side = {"folder": text, "name": text, "fingerprint": text, "dtype": text}
        bad = verdict(told, quarantine=[held], warnings=[text], baseline=side, candidate=side)
        suites = ET.fromstring(ci.junit(bad).encode())
        assert {e.tag for e in suites.iter()} <= {"testsuites", "testsuite", "testcase",
                                                  "failure", "skipped"}  # fmt: skip
        assert len(list(ci.github_commands(bad))) == 1
        (line,) = ci.github_commands(bad)
        assert "\n" not in line
        assert "\r" not in line
        assert line.startswith("::error title=FAIL ")
        terminal = ci.text(bad)
        assert len(terminal.splitlines()) == 4
        assert visible(terminal) == terminal
        markdown = ci.summary(bad)
        for markup in ("<script", "](", "![", "@everyone", "<x>"):
            assert markup not in markdown


@given(st.text())
def test_whatever_is_written_is_valid_xml_and_one_line(text: str) -> None:
    assert "\n" not in one_line(text)
    assert len(one_line(text)) <= 500
    bad = verdict({"message": text, "verdict": "FAIL", "rule": {"type": "t", "task": text}})
    ET.fromstring(ci.junit(bad).encode())
