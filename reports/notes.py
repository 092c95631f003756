"""What a reader must know beside the numbers, as sentences: caveats, and how a protocol differs
from the paper's. `say` translates a sentence and fills its places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qwen_eval.paper import Figure
from qwen_eval.protocol import (
    SENTENCES,
    UNPUBLISHED,
    Difference,
    beside,
    differences,
    metric_difference,
)

from .figures import shown, unit_of
from .plain import one_line
from .view import Report, RunView, Score

Say = Callable[..., str]


def caveats(report: Report, say: Say) -> list[str]:
    """One line each, and each once."""
    found = (line for run in report.runs for line in _caveats_of(run, say))
    return list(dict.fromkeys(found))


def _caveats_of(run: RunView, say: Say) -> Iterator[str]:
    label = one_line(run.label, 80)
    if not run.finished:
        so_far = sum(score.counts["samples"] for score in run.scores.values())
        yield say("%(run)s is unfinished: %(count)s samples so far, which are no random draw.",
                  run=label, count=so_far)  # fmt: skip
    if note := (run.model.get("detail") or {}).get("note"):
        yield f"{label}: {one_line(str(note))}"
    for task, score in run.scores.items():
        name, (n, of_all) = one_line(task, 80), _taken(score)
        if score.invalid:
            yield say("%(task)s of %(run)s is invalid: %(why)s.", task=name, run=label,
                      why=one_line("; ".join(score.invalid)))  # fmt: skip
        if excluded := score.counts.get("excluded"):
            yield say("%(task)s of %(run)s: %(count)s of %(all)s samples excluded as too short.",
                      task=name, run=label, count=excluded,
                      all=score.counts["samples"])  # fmt: skip
        for metric, figure in score.whole.items():
            value = "–" if figure.value is None else shown(figure.value, unit_of(metric))
            yield say("%(task)s of %(run)s: %(figure)s; made by %(by)s, without an interval.",
                      task=name, run=label, figure=one_line(f"{metric} {value}", 120),
                      by=one_line(figure.by, 200))  # fmt: skip
        if score.info.data_kind == "sample":
            yield say("%(task)s: SAMPLE questions written for this project, not the benchmark.",
                      task=name)  # fmt: skip
        elif n != of_all:
            yield say("%(task)s: %(n)s of %(all)s samples, a fixed random draw.",
                      task=name, n=n, all=of_all)  # fmt: skip
    if any(score.info.runs_programs for score in run.scores.values()):
        yield say("Programs ran under: %(isolation)s.", isolation=one_line(run.isolation))


def near_figures(report: Report, task: str) -> list[Figure]:
    """The published figures that stand beside a task's score in any of the runs, each once."""
    found = [
        figure
        for run in report.runs
        if task in run.scores
        for figure in beside(run.scores[task].info, run.model, run.scores[task].info.metric)
    ]
    return list({(figure.model, figure.value): figure for figure in found}.values())


def protocol_differences(report: Report, task: str, say: Say) -> list[str]:
    """Why a score here is not the paper's figure of the same name, and what of the paper's side is
    not known."""
    runs = [run for run in report.runs if task in run.scores]
    found = [one for run in runs for one in _differences_of(run.scores[task], run)]
    infos = [run.scores[task].info for run in runs]
    lines = [
        say("asked as: %(source)s", source=one_line(info.protocol))
        for info in infos
        if info.protocol
    ]
    lines += [
        say(SENTENCES[one.aspect], ours=one_line(one.ours, 40), paper=one.paper)
        for one in found
        if one.paper is not None
    ]
    unknown = dict.fromkeys(say(UNPUBLISHED[d.aspect]) for d in found if d.paper is None)
    if unknown:
        lines.append(say("not published: %(what)s", what=", ".join(unknown)))
    return list(dict.fromkeys(lines))


def _differences_of(score: Score, run: RunView) -> Iterator[Difference]:
    if other := metric_difference(score.info):
        yield other
    for figure in beside(score.info, run.model, score.info.metric):
        truncated = score.counts["prompts_truncated"]
        for difference in differences(score.info, figure, run.model, truncated):
            if difference.aspect != "note":  # it stands beside the figure
                yield difference


def _taken(score: Score) -> tuple[str, str]:
    return f"{score.info.selected:,}", f"{score.info.available:,}"
