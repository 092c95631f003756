"""What a reader must know beside the numbers, as sentences: caveats, and how a protocol differs
from the paper's. `say` translates a sentence and fills its places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from qwen_eval.paper import Figure

from .figures import unit_of
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
        if score.info.data_kind == "sample":
            yield say("%(task)s: SAMPLE questions written for this project, not the benchmark.",
                      task=name)  # fmt: skip
        elif n != of_all:
            yield say("%(task)s: %(n)s of %(all)s samples, a fixed random draw.",
                      task=name, n=n, all=of_all)  # fmt: skip
    if any(score.info.solver == "code" for score in run.scores.values()):
        yield say("Programs ran under: %(isolation)s.", isolation=one_line(run.isolation))


def near_figures(report: Report, task: str) -> list[Figure]:
    """Of the published figures those of Qwen's own models that measure what the task does, as a
    whole, at this run's number of shots where the paper has it."""
    infos = [run.scores[task].info for run in report.runs if task in run.scores]
    units = {unit_of(info.metric) for info in infos}
    metrics = {info.metric for info in infos} | {"perplexity"}
    # Several columns of a table: of single lengths, or of win, tie and loss.
    columns = Counter((figure.table, figure.model, figure.shots) for figure in report.anchors[task])
    own = [
        figure
        for figure in report.anchors[task]
        if figure.model.startswith("Qwen")
        and figure.unit in units
        and figure.metric in metrics
        and columns[figure.table, figure.model, figure.shots] == 1
    ]
    own = [figure for figure in own if figure.shots is not None] or own
    shots = {info.shots for info in infos}
    fitting = [figure for figure in own if figure.shots in shots] or own
    # Two tables may hold one figure.
    return list({(figure.model, figure.value): figure for figure in fitting}.values())


def protocol_differences(report: Report, task: str, say: Say) -> list[str]:
    """Why a score here is not the paper's figure of the same name."""
    published = {figure.shots for figure in report.anchors[task] if figure.shots is not None}
    scores = [run.scores[task] for run in report.runs if task in run.scores]
    found = (line for score in scores for line in _differences_of(score, published, say))
    return list(dict.fromkeys(found))


def _differences_of(score: Score, published: set[int], say: Say) -> Iterator[str]:
    info, (n, of_all) = score.info, _taken(score)
    recipe = info.recipe.partition("@")[2]
    if info.shots is not None and published and info.shots not in published:
        theirs = "/".join(map(str, sorted(published)))
        yield say("%(ours)s-shot here, %(theirs)s-shot there", ours=info.shots, theirs=theirs)
    if recipe != "qwen":
        yield say("recipe @%(recipe)s, not the released script's (@qwen)",
                  recipe=one_line(recipe, 40))  # fmt: skip
    if info.protocol:
        yield say("asked as: %(source)s", source=one_line(info.protocol))
    if info.data_kind == "sample":
        yield say("not the benchmark's questions")
    elif n != of_all:
        yield say("%(n)s of %(all)s samples", n=n, all=of_all)


def _taken(score: Score) -> tuple[str, str]:
    return f"{score.info.selected:,}", f"{score.info.available:,}"
