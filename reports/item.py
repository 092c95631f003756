"""One item of two runs in words, made from the JSON of qwen_eval.explain and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from qwen_eval.measures import measure_of

from .plain import one_line, visible

Facts = Mapping[str, Any]


def text(item: Facts, *, full: bool = False) -> str:
    """For a terminal: a block for every recipe that asked the item. `full`: with the prompt's
    shared beginning."""
    blocks = ("\n".join(_block(item, task, full)) for task in item["tasks"])
    return "\n\n".join(blocks) + "\n"


def _block(item: Facts, task: Facts, full: bool) -> Iterator[str]:
    group = f"  group {one_line(task['group'])}" if task["group"] else ""
    yield f"{one_line(task['task'])}  {one_line(item['item'])}{group}"
    yield from (f"  {line}" for line in _judged(task))
    if full:
        yield from _quoted("prompt, shared beginning", task["prefix"])
    yield from _quoted("prompt", task["prompt"])
    yield from _quoted("target", task["target"])
    for side, answer in task["answers"].items():
        yield f"{side}  {one_line(item[side])}"
        yield from _answer(answer, task["metric"])


def _judged(task: Facts) -> Iterator[str]:
    if task["flipped"] is None:
        yield "has no score in both runs"
    elif task["flipped"]:
        inside = ", inside the noise of dtype and machine" if task["in_noise"] else ""
        yield f"its score changed{inside}"
    else:
        yield "its score is the same in both"
    if task["weight"]:
        yield f"weighs {_share(task['weight'], task['metric'])}"
    else:
        yield "weighs nothing"
    if (unsteady := task["unsteady"]) is not None:
        yield f"differed in {unsteady['changed']} of {unsteady['runs']} A/A runs"
    for held in task["quarantine"]:
        ended = "was" if held["over"] else "is"
        yield one_line(f"{ended} in quarantine until {held['until']}: {held['reason']}")


def _share(weight: float, metric: str) -> str:
    if (kind := measure_of(metric).weight) is not None:
        return f"{100 * weight:.3g}% of all {kind}"
    return f"{100 * weight:.3g} points, one of {round(1 / weight)} items"


def _answer(answer: Facts | None, metric: str) -> Iterator[str]:
    if answer is None:
        yield "  does not have it"
        return
    values = {metric: None} | dict(answer["values"])  # the one that counts comes first
    said = [f"{name} {value:g}" for name, value in values.items() if value is not None]
    facts = [answer["status"], *said, f"answer {answer['answer']!r}"]
    if answer["margin"] is not None:
        facts.append(f"margin {answer['margin']:.4g}")
    yield f"  {one_line(', '.join(facts))}"
    if answer["error"]:
        yield f"  {one_line(answer['error'])}"
    for response in answer["responses"]:
        if response["finish_reason"] == "executed":
            yield from _quoted("a cell put out", response.get("text", ""))
            if response.get("fault"):
                yield from _quoted("and failed", response["fault"])
        elif response.get("text"):
            yield from _quoted(f"reply, ended by {response['finish_reason']}", response["text"])
        else:
            known = response.get("logprobs", ())
            if answer["margin"] is None and known:  # a text that was read, token by token
                yield f"  {len(known)} tokens, log-probability {math.fsum(known):.6g}"
                continue
            shown = "".join(f" {p:.4g}" for p in known)
            yield f"  {one_line(response['finish_reason'])}{shown and ', log-probabilities'}{shown}"


def _quoted(name: str, said: str) -> Iterator[str]:
    yield f"  {one_line(name)}:"
    yield from (f"  | {line}" for line in visible(said).split("\n"))
