"""Whether a reply follows instructions that a program can check: IFEval (Zhou et al. 2023, arXiv
2311.07911), by the checkers that lm-evaluation-harness carries."""

from __future__ import annotations

from typing import Any

from qwen_eval.types import Item, Score

from .guarded import UndecidedError, guard


def instructions(text: str, item: Item) -> Score:
    """The item's metric is 1 if the reply follows all instructions of the row; `inst_level_strict`
    is the share that it follows, and the other two are the same with leniency: without the first or
    the last line, and without asterisks. `instructions` is the share's weight."""
    detail: dict[str, Any]
    columns = ("prompt", "instruction_id_list", "kwargs")
    try:
        done = guard().call("followed", {key: item.sample.row[key] for key in columns}, text)
    except UndecidedError as reason:
        done = {kind: [False] * len(item.sample.row["kwargs"]) for kind in ("strict", "loose")}
        detail = {"undecided": str(reason)}
    else:
        named = zip(item.sample.row["instruction_id_list"], done["strict"], strict=True)
        detail = {"broken": [name for name, kept in named if not kept]}
    values = {
        item.metric: float(all(done["strict"])),
        "prompt_level_loose": float(all(done["loose"])),
        "inst_level_strict": sum(done["strict"]) / len(done["strict"]),
        "inst_level_loose": sum(done["loose"]) / len(done["loose"]),
        "instructions": float(len(done["strict"])),
    }
    return Score(values, status="scored" if text.strip() else "no_answer", detail=detail)
