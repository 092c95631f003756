"""A gate's verdict in the forms that CI systems read. All of them are made from the one JSON
verdict; nothing is computed again here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any

from .plain import one_line, visible

Verdict = Mapping[str, Any]

ANNOTATIONS = 10  # of each kind that GitHub shows of a step
SUMMARY_BYTES = 1_000_000  # GitHub drops a longer summary whole
_MARKS = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?", "ERROR": "!"}


def title(rule: Mapping[str, Any]) -> str:
    """A rule's name: its type and what it is about."""
    kind, about = str(rule["type"]), rule.get("task") or rule.get("figure", "")
    return one_line(f"{kind} {about}")


def text(verdict: Verdict) -> str:
    """For a terminal: the verdict first, then a line per rule."""
    lines = [f"{verdict['verdict']}  {_between(verdict)}"]
    for one in verdict["rules"]:
        aside = "" if one["blocking"] else " (not blocking)"
        lines.append(
            f"  {_MARKS[one['verdict']]} {one['verdict']:12} {title(one['rule'])}{aside}: "
            f"{one_line(one['message'])}"
        )
    for held in verdict["quarantine"]:
        lines.append(
            one_line(f"  quarantined until {held['until']}: {held['task']} {held['item']}, "
                     f"{held['reason']}")
        )  # fmt: skip
    lines += [f"  warning: {one_line(warning)}" for warning in verdict["warnings"]]
    return "\n".join(lines) + "\n"


def junit(verdict: Verdict) -> str:
    """A suite per task, a case per rule: failure, error, or skipped where nothing was decided."""
    suites = ET.Element("testsuites", name="qwen-eval gate")
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for one in verdict["rules"]:
        by_task.setdefault(str(one["rule"].get("task", "run")), []).append(one)
    held_by_task: dict[str, list[Mapping[str, Any]]] = {}
    for held in verdict["quarantine"]:
        held_by_task.setdefault(str(held["task"]), []).append(held)
    for task in dict.fromkeys((*by_task, *held_by_task)):
        name = visible(task)
        suite = ET.SubElement(suites, "testsuite", name=name)
        for one in by_task.get(task, []):
            case = ET.SubElement(suite, "testcase", classname=name, name=title(one["rule"]))
            if (tag := _tag(verdict, one)) is not None:
                ET.SubElement(case, tag, message=one_line(one["message"]))
        for held in held_by_task.get(task, []):
            item = one_line(f"quarantined {held['item']}")
            case = ET.SubElement(suite, "testcase", classname=name, name=item)
            ET.SubElement(case, "skipped", message=one_line(f"{held['reason']}, {held['until']}"))
        for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"),
                           ("skipped", "skipped")):  # fmt: skip
            suite.set(count, str(len(list(suite.iter(tag)))))
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, "unicode") + "\n"


def github_commands(verdict: Verdict) -> Iterator[str]:
    """GitHub's workflow commands: errors for what fails the gate, warnings for what does not."""
    shown = {"error": 0, "warning": 0}
    for one in verdict["rules"]:
        if one["verdict"] == "PASS":
            continue
        kind = "error" if _tag(verdict, one) in ("failure", "error") else "warning"
        shown[kind] += 1
        if shown[kind] <= ANNOTATIONS:
            name = _property(f"{one['verdict']} {title(one['rule'])}")
            yield f"::{kind} title={name}::{_data(one_line(one['message']))}"


def summary(verdict: Verdict, most: int = SUMMARY_BYTES) -> str:
    """Markdown for a step's summary or a comment, cut by rows where it would be too long."""
    head = f"## {_MARKS[verdict['verdict']]} {verdict['verdict']}\n\n{_cell(_between(verdict))}\n\n"
    head += "| | rule | |\n|---|---|---|\n"
    rows = [
        f"| {one['verdict']} | {_cell(title(one['rule']))} | {_cell(one_line(one['message']))} |\n"
        for one in verdict["rules"]
    ]
    tail = "".join(f"\n{_cell(one_line(warning))}\n" for warning in verdict["warnings"])
    room, kept = most - len((head + tail).encode()) - 100, 0
    for row in rows:
        room -= len(row.encode())
        if room < 0:
            break
        kept += 1
    cut = f"\n{len(rows) - kept} more rules are not shown.\n" if kept < len(rows) else ""
    return head + "".join(rows[:kept]) + cut + tail


def _tag(verdict: Verdict, one: Mapping[str, Any]) -> str | None:
    """JUnit's word for a rule's end."""
    if one["verdict"] == "PASS":
        return None
    if one["verdict"] == "ERROR":
        return "error"
    undecided = one["verdict"] == "INCONCLUSIVE" and verdict["inconclusive"] != "fail"
    return "skipped" if undecided or not one["blocking"] else "failure"


def _between(verdict: Verdict) -> str:
    sides = (verdict[side] for side in ("baseline", "candidate"))
    before, after = (
        one_line(f"{side['name']} {side['dtype']} ({side['folder']})") for side in sides
    )
    return f"{before} → {after}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    """Inert in a Markdown table: nothing in it is markup, a link or a mention."""
    return "".join(f"&#{ord(c)};" if c in _MARKUP else c for c in text)


_MARKUP = frozenset("\\`*_{}[]<>()#+!|~@&")
