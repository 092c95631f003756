"""A report as a self-contained HTML page, in English or Chinese.

Every text of a model, a file or a task is escaped by Jinja and shown with its control characters as
symbols. The page's policy allows its own style and script, by their hashes, and nothing else: no
request leaves it. The same report gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qwen_eval import __version__
from qwen_eval.compare import TaskComparison

from . import charts, drawings, figures
from .ci import title as rule_title
from .flips import shorten
from .notes import Say, caveats, near_figures, protocol_differences
from .outcome import OUTCOMES
from .plain import one_line, visible
from .samples import LETTERS
from .view import Report

Language = Literal["en", "zh"]
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class SampleSet:
    """What the sample browser gets: packed data (samples.packed) in this page, or the name of the
    page beside it that has them; neither, and there are none."""

    count: int = 0
    packed: str = ""
    link: str = ""


@lru_cache
def speaker(language: Language) -> Say:
    """Puts an English sentence into the language and fills its places."""
    path = TEMPLATES / f"{language}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def say(text: str, **values: Any) -> str:
        told = str(known.get(text, text))
        return told % values if values else told

    return say


@lru_cache
def _environment(language: Language) -> Environment:
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    say = speaker(language)
    env.filters |= {
        "shown": figures.shown,
        "points": figures.points,
        "ratio": figures.ratio,
        "p_value": figures.p_value,
        "duration": figures.duration,
        "size": figures.size,
        "table_name": lambda name: _table_name(name, say),
    }
    env.tests |= {
        "proven": _is_proven,
        "too_few": _are_too_few,
        "less_is_better": lambda unit: unit not in figures.MORE_IS_BETTER,
    }
    env.globals |= {
        "_": say,
        "scaled": figures.scaled,
        "ends": figures.ends,
        "change": figures.change,
        "gained": figures.gained,
        "unit_of": figures.unit_of,
        "stacked": charts.stacked,
        "rule_title": rule_title,
        "difference_text": _difference_text,
        "language": language,
        "version": __version__,
    }
    return env


def _inert(value: Any) -> Any:
    """Jinja's last step before it escapes a value; no name or message is the whole page."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(shorten(value, LETTERS))
    return value


def page(
    report: Report, samples: SampleSet, *, language: Language = "en", refresh: int | None = None
) -> str:
    """The report. `refresh`: seconds after which the page reads itself again."""
    say = speaker(language)
    units = {
        task: figures.unit_of(score.info.metric)
        for run in report.runs
        for task, score in run.scores.items()
    }
    near = {task: near_figures(report, task) for task in report.tasks}
    outcomes = [t for t in report.tasks if any(s.outcomes for s in drawings.scores_of(report, t))]
    names = [
        name
        for name in OUTCOMES
        if any(name in s.outcomes for task in outcomes for s in drawings.scores_of(report, task))
    ]
    kinds = {name: OUTCOMES.index(name) for name in OUTCOMES}
    known: dict[str, Any] = {
        "report": report,
        "names": " · ".join(one_line(run.label, 80) for run in report.runs),
        "units": units,
        "near": near,
        "letters": [_letters(place) for place in range(len(report.runs))],
        "compared": any(pair.tasks for pair in report.pairs),
        "scales": {
            task: drawings.scale(report, task, [figure.value for figure in near[task]])
            for task in report.tasks
        },
        "differences": {task: protocol_differences(report, task, say) for task in report.tasks},
        "forest": drawings.forest(report),
        "caveats": caveats(report, say),
        "outcomes": outcomes,
        "outcome_names": names,
        "outcome_kinds": kinds,
        "outcome_key": [(f"o{kinds[name]}", say(name)) for name in names],
        "judged": [t for t in report.tasks if any(s.judged for s in drawings.scores_of(report, t))],
        "drawn": {
            task: chart for task in report.tasks if (chart := drawings.by_length(report, task))
        },
        "maps": {
            task: chunks for task in report.tasks if (chunks := drawings.by_subject(report, task))
        },
        "samples_link": quote(samples.link),
        "count": f"{samples.count:,}",
    }
    known["sections"] = _sections(known, say)
    return written(language, "report.html", known, samples.packed, refresh)


def samples_page(
    report: Report, packed: str, report_link: str, *, language: Language = "en"
) -> str:
    """The page beside a report that holds a large set of samples."""
    names = " · ".join(one_line(run.label, 80) for run in report.runs)
    known = {"names": names, "report_link": quote(report_link)}
    return written(language, "samples.html", known, packed)


def written(
    language: Language,
    name: str,
    known: dict[str, Any],
    packed: str = "",
    refresh: int | None = None,
) -> str:
    """A template with what it is told, under a policy that lets only its own script run."""
    env, say = _environment(language), speaker(language)
    style = env.get_template("style.css").render()
    script = (TEMPLATES / "browser.js").read_text(encoding="utf-8")
    words = {key: say(text) for key, text in _BROWSER_WORDS.items()}
    ways = {name: say(name) for name in OUTCOMES}
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return env.get_template(name).render(
        known,
        style=Markup(style),
        script=Markup(script),
        packed=Markup(packed),
        words=Markup(island(words | {"outcomes": ways})),
        policy=policy,
        refresh=refresh,
    )


def drawing(language: Language, name: str, known: Mapping[str, Any]) -> str:
    """A template that is a picture by itself."""
    return _environment(language).get_template(name).render(known)


_BROWSER_WORDS = {
    "count": "{n} of {all} samples",
    "prefix": "Few-shot prefix",
    "question": "Question",
    "target": "Right answer",
    "answer": "Answer read:",
    "margin": "Margin of the best option:",
}


def island(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return "".join(f"\\u{ord(c):04x}" if c in "<>&\u2028\u2029" else c for c in text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _table_name(name: str, say: Say) -> str:
    if found := re.fullmatch(r"(table|figure)(\d+)", name):
        return f"{say(found[1].capitalize())} {found[2]}"
    return {"memo": say("technical memo")}.get(name, "README")


def _is_proven(one: TaskComparison, alpha: float) -> bool:
    return one.p_adjusted <= alpha


def _are_too_few(one: TaskComparison, alpha: float) -> bool:
    """Whether no outcome of the test would be a proof: half of all ways to fall, for each unit."""
    return 0.5 ** (one.paired.clusters or one.paired.n) > alpha


def _difference_text(one: TaskComparison) -> str:
    delta, low, high = figures.change(one.paired, figures.unit_of(one.metric))
    return f"{delta} ({low} … {high})"


def _letters(place: int) -> str:
    """A to Z, then AA and so on."""
    before, last = divmod(place, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + last)


def _sections(known: Mapping[str, Any], say: Say) -> list[tuple[str, str]]:
    report: Report = known["report"]
    there = (
        ("verdict", "Verdict", True),
        ("scores", "Scores", True),
        ("differences", "Differences", known["compared"]),
        ("flips", "Changed answers", any(any(pair.changed.values()) for pair in report.pairs)),
        ("outcomes", "How answers ended", bool(known["outcomes"])),
        ("judged", "Win, tie, loss", bool(known["judged"])),
        ("lengths", "By length", bool(known["drawn"])),
        ("groups", "By subject", bool(known["maps"])),
        ("cost", "Cost and speed", True),
        ("provenance", "Provenance", True),
        ("samples", "Samples", True),
    )
    return [(anchor, say(title)) for anchor, title, shown in there if shown]
