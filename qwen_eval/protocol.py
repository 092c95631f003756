"""Which published figures a score stands beside, and every way in which the two did not come about
alike.

What both sides say of themselves is compared: a task's entry in run.json, a column of a table. What
neither says, such as the wording of a prompt whose source is not known, nobody can compare. Knows
nothing of how findings are shown; SENTENCES are there to be translated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qwen_eval.paper import Figure, Kind, published
from qwen_eval.results import TaskInfo

SERIES = ("Qwen 1.8B", "Qwen 7B", "Qwen 14B", "Qwen-Chat 1.8B", "Qwen-Chat 7B", "Qwen-Chat 14B")
"""The models whose figures stand beside those of any other model."""
_RELEASED = {
    "Qwen-1_8B": "Qwen 1.8B (released)",
    "Qwen-7B": "Qwen 7B",
    "Qwen-14B": "Qwen 14B",
    "Qwen-72B": "Qwen 72B",
    "Qwen-1_8B-Chat": "Qwen-Chat 1.8B (released)",
    "Qwen-7B-Chat": "Qwen-Chat 7B",
    "Qwen-14B-Chat": "Qwen-Chat 14B",
    "Qwen-72B-Chat": "Qwen-Chat 72B",
}
# Solvers that compare likelihoods or read texts, and write nothing.
_WRITE_NOTHING = ("choice", "contexts", "continuation", "perplexity", "long_perplexity", "people")

Aspect = Literal[
    "model",
    "data",
    "own",
    "samples",
    "metric",
    "shots",
    "text",
    "conversation",
    "script",
    "recipe",
    "scorer",
    "decoding",
    "questions",
    "groups",
    "whole",
    "cut",
    "room",
    "note",
]
SENTENCES: Mapping[Aspect, str] = {
    "model": "the paper's 1.8B is another model than the released one",
    "data": "SAMPLE questions of this project here, the benchmark there",
    "own": "questions of this project here, others there",
    "samples": "a draw of the samples here, all of them there",
    "metric": "metric %(ours)s here, %(paper)s there",
    "shots": "%(ours)s-shot here, %(paper)s-shot there",
    "text": "plain text here, a conversation there",
    "conversation": "a conversation here, plain text there",
    "script": "recipe of %(ours)s here, of the task's released script there",
    "recipe": "recipe of %(ours)s here, of %(paper)s there",
    "scorer": "scorer here: %(ours)s; there: %(paper)s",
    "decoding": "decoding here: %(ours)s; there: %(paper)s",
    "questions": "mean over questions here, over subjects there",
    "groups": "mean over subjects here, over questions there",
    "whole": "long prompts whole here, cut to %(paper)s tokens there",
    "cut": "long prompts cut to %(ours)s tokens here, to %(paper)s there",
    "room": "some prompts cut to this model's context here",
    "note": "there: %(paper)s",
}
UNPUBLISHED: Mapping[Aspect, str] = {
    "shots": "number of shots",
    "text": "base or chat protocol",
    "recipe": "recipe",
    "scorer": "scorer",
    "decoding": "decoding",
    "cut": "cut of long prompts",
}
"""What is said not to be published, where the paper's side of it is not known."""


@dataclass(frozen=True)
class Difference:
    """One thing that was not alike, or that cannot be known to be. `paper` is None where it was not
    published."""

    aspect: Aspect
    ours: str
    paper: str | None

    @property
    def text(self) -> str:
        """A sentence."""
        if self.paper is None:
            return f"not published: {UNPUBLISHED[self.aspect]}"
        return SENTENCES[self.aspect] % {"ours": self.ours, "paper": self.paper}


@dataclass(frozen=True)
class PaperRow:
    """Figures of one column, by model. `category`: None for the whole task."""

    table: str
    kind: Kind
    metric: str
    category: str | None
    shots: int | None
    figures: Mapping[str, float]
    differences: tuple[Difference, ...]


def paper_name(model: Mapping[str, Any]) -> str | None:
    """What the paper or its README calls the model of a run.json; None for any other model."""
    for name in (model.get("name", ""), model.get("asked_for", "")):
        if found := _RELEASED.get(str(name).replace(":", "/").rpartition("/")[2]):
            return found
    return None


def beside(
    info: TaskInfo, model: Mapping[str, Any], metric: str, category: str | None = None
) -> list[Figure]:
    """The published figures of a metric to be read beside a task's own: those of the model itself,
    else those of SERIES that were asked in the same way, as base or chat models. Where some have
    this run's number of shots, those alone. A figure that two tables have is there once."""
    found = [f for f in published(_task(info), category) if f.metric == metric]
    own = [f for f in found if f.model == paper_name(model)]
    series = [f for f in found if f.model in SERIES]
    alike = [f for f in series if f.kind == ("chat" if info.chat else "base")]
    found = own or alike or series
    known = [f for f in found if f.shots is not None] or found
    fitting = [f for f in known if f.shots == info.shots] or known
    once: dict[tuple[str, float], Figure] = {}
    for figure in fitting:
        once.setdefault((figure.model, figure.value), figure)
    return list(once.values())


def rows(
    info: TaskInfo,
    model: Mapping[str, Any],
    parts: Sequence[tuple[str, str | None]],
    truncated: int = 0,
) -> list[PaperRow]:
    """What was published of a task, a row for each column. `parts`: metrics with a category of the
    task, or None for the whole. `truncated`: this run's prompts that were cut."""
    found: list[PaperRow] = []
    for metric, category in parts:
        columns: dict[tuple[str, str], list[Figure]] = {}
        for figure in beside(info, model, metric, category):
            columns.setdefault((figure.table, figure.column), []).append(figure)
        for (table, _), here in columns.items():
            cells = {figure.model: figure.value for figure in here}
            unlike = tuple(differences(info, here[0], model, truncated))
            found.append(
                PaperRow(table, here[0].kind, metric, category, here[0].shots, cells, unlike)
            )
    return found


def differences(
    info: TaskInfo, figure: Figure, model: Mapping[str, Any], truncated: int = 0
) -> Iterator[Difference]:
    """Every way in which a score did not come about as the figure beside it."""
    if "(released)" in (paper_name(model) or "") and "(released)" not in figure.model:
        yield Difference("model", str(model.get("name", "")), figure.model)
    yield from _data(info)
    if info.shots is not None and info.shots != figure.shots:
        yield Difference("shots", str(info.shots), _word(figure.shots))
    if figure.chat is None:
        yield Difference("text", "a conversation" if info.chat else "plain text", None)
    elif figure.chat:
        if not info.chat:
            yield Difference("text", "plain text", "a conversation")
    elif info.chat:
        yield Difference("conversation", "a conversation", "plain text")
    # Recipes are frozen: one made after the script reads replies as the script does.
    if figure.recipe is None or figure.recipe not in info.protocol:
        released = (figure.recipe or "").startswith("eval/")
        yield Difference("script" if released else "recipe", _source(info.protocol), figure.recipe)
        if figure.scorer != info.scorer:
            yield Difference("scorer", info.scorer, figure.scorer)
    writes = info.solver not in _WRITE_NOTHING and figure.scorer != "argmax"
    if writes and figure.decoding != info.decoding:
        yield Difference("decoding", info.decoding, figure.decoding)
    if figure.macro is not None and figure.macro != info.macro:
        yield Difference("groups" if info.macro else "questions", "", "")
    yield from _cuts(info, figure, model.get("max_length"), truncated)
    if figure.note:
        yield Difference("note", "", figure.note)


def metric_difference(info: TaskInfo) -> Difference | None:
    """For a task whose figures are all of other metrics than this run's score. What people said of
    answers is no metric of a run that wrote them."""
    others = dict.fromkeys(f.metric for f in published(_task(info)) if f.kind != "human")
    if not others or info.metric in others:
        return None
    return Difference("metric", info.metric, ", ".join(others))


def _data(info: TaskInfo) -> Iterator[Difference]:
    if info.data_kind == "sample":
        yield Difference("data", "sample", "benchmark")
        return
    if info.data_kind == "own":
        yield Difference("own", "own", "others")
    if info.selected < info.available:
        yield Difference("samples", f"{info.selected:,}", f"{info.available:,}")


def _cuts(info: TaskInfo, figure: Figure, room: Any, truncated: int) -> Iterator[Difference]:
    limit = info.max_prompt_tokens
    if figure.context is not None and limit != figure.context:
        aspect: Aspect = "whole" if limit is None else "cut"
        yield Difference(aspect, f"{limit:,}" if limit else "", f"{figure.context:,}")
    if figure.context is None and limit is not None:
        yield Difference("cut", f"{limit:,}", None)
    if truncated and (limit is None or (isinstance(room, int) and 0 < room < limit)):
        yield Difference("room", f"{truncated:,}", "")


def _source(protocol: str) -> str:
    """Whose recipe it is, by the source that it names."""
    if "written for this project" in protocol:
        return "qwen-eval"
    for source, name in (("lm-evaluation-harness", "lm-eval"), ("QwenLM/Qwen", "QwenLM/Qwen")):
        if source in protocol:
            return name
    return "qwen-eval"


def _task(info: TaskInfo) -> str:
    return info.recipe.partition("@")[0]


def _word(number: int | None) -> str | None:
    return None if number is None else str(number)
