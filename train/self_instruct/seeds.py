"""Seeds: the samples that a model is shown first.

Two kinds of JSON lines are read: our own, with query, tools and trace, as a build writes them too;
and conversations with function_call and observation turns, as ShareGPT-like sets of tool calls
have them. Of those the first question counts, with its calls up to the first answer; they have no
thoughts, so a plain one is put there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl

from .rules import DroppedError, check_call, check_whole
from .samples import Sample, Step, Tool, steps_of, tool_of, writing

OWN = "seeds.jsonl"
_THOUGHTS = {
    "en": ("I should call {} for this.", "I now know the final answer.", "No tool is needed here."),
    "zh": ("我需要调用 {}。", "我现在知道最终答案了。", "这个问题不需要用工具。"),
}


def own_seeds() -> list[Sample]:
    """Those that come with the project, all of whose tools are programs."""
    with files(__package__).joinpath(OWN).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [_own(row, f"{OWN}, row {number}") for number, row in enumerate(rows, 1)]


def read_seeds(paths: Sequence[Path]) -> tuple[list[Sample], int]:
    """The samples of files, and how many rows hold none that the rules would keep.

    Raises UserError naming file and row for one that is of neither kind.
    """
    found, left = list[Sample](), 0
    for path in paths:
        for number, row in enumerate(read_jsonl(path), 1):
            where = f"{path}, row {number}"
            sample = (_conversation if "conversations" in row else _own)(row, where)
            if sample is None or not _good(sample):
                left += 1
            else:
                found.append(sample)
    return found, left


def _good(sample: Sample) -> bool:
    try:
        for step in sample.steps:
            check_call(step, sample.tools)
        check_whole(sample, sample.language)
    except DroppedError:
        return False
    return True


def _own(row: Mapping[str, Any], where: str) -> Sample:
    query, tools, trace = row.get("query"), row.get("tools"), row.get("trace")
    steps = steps_of(trace) if isinstance(trace, str) else None
    if not isinstance(query, str) or not _are_tools(tools) or steps is None:
        raise UserError(
            f"{where}: needs query, tools and a trace of Thought, Action, Action Input and "
            "Observation lines up to a Final Answer; or conversations and tools"
        )
    assert isinstance(tools, list)
    return Sample(query, tuple(tools), *steps)


def _are_tools(tools: Any) -> bool:
    keys = ("name_for_model", "name_for_human", "description_for_model", "parameters")
    return isinstance(tools, list) and all(
        isinstance(tool, dict)
        and set(keys) <= tool.keys()
        and isinstance(tool["parameters"], list)
        and all(
            isinstance(p, dict) and {"name", "required", "schema"} <= p.keys()
            for p in tool["parameters"]
        )
        for tool in tools
    )


def _conversation(row: Mapping[str, Any], where: str) -> Sample | None:
    """None for a conversation without tools, or whose first question has no answer."""
    try:
        schemas = row.get("tools") or "[]"
        schemas = json.loads(schemas) if isinstance(schemas, str) else schemas
        tools: tuple[Tool, ...] = tuple(map(tool_of, schemas))
        turns = [(turn["from"], turn["value"]) for turn in row["conversations"]]
        if not tools or not turns or turns[0][0] != "human":
            return None
        query = turns[0][1]
        call, known, none_needed = _THOUGHTS[writing(query)]
        steps: list[Step] = []
        for (kind, value), (_, after) in zip(turns[1:], [*turns[2:], ("", "")], strict=True):
            if kind == "function_call":
                called = json.loads(value)
                arguments = json.dumps(called["arguments"], ensure_ascii=False)
                thought = call.format(called["name"])
                steps.append(Step(thought, called["name"], arguments, after))
            elif kind == "gpt":
                return Sample(query, tools, tuple(steps), known if steps else none_needed, value)
            elif kind == "human":
                return None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: no conversation with tools ({error!r})") from error
    return None
