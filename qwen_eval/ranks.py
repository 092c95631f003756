"""Several processes on one run, started by torchrun: who takes which samples.

Nothing is sent between ranks. Every rank deals the samples that were missing when the launch began
in the same way, keeps its own hand, and writes a journal of its own; whoever finds all samples
there finishes the run. A rank that died leaves its samples missing, and the next start, with any
number of ranks, deals them anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.types import Item

# A group of samples behind one prefix stays together unless it is larger than this part of a
# rank's fair share.
PART = 0.25


@dataclass(frozen=True)
class Rank:
    """Process `index` of `count` of one launch; `launch` names it among others of the same run."""

    index: int
    count: int
    launch: str

    @property
    def journal(self) -> str:
        """What its journal is called."""
        return f"{self.launch}-{self.index}"


def rank_of(environment: Mapping[str, str]) -> Rank | None:
    """What torchrun says of this process; None where it is the only one.

    Raises UserError if the variables do not fit together.
    """
    try:
        index, count = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    except ValueError:
        index, count = -1, 1
    if not 0 <= index < count:
        raise UserError(
            f"RANK={environment.get('RANK')} and WORLD_SIZE={environment.get('WORLD_SIZE')} "
            "name no process of a group; start it by torchrun, or unset both"
        )
    if count == 1:
        return None
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    return Rank(index, count, text_hash(repr([environment.get(name) for name in names]), 8))


def deal(items: Sequence[Item], count: int) -> list[list[Item]]:
    """Every item to one of `count` hands of like work, whole prefix groups together."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.recipe, item.prompt.prefix), []).append(item)
    most = PART * sum(_work(group) for group in groups.values()) / count
    parts: list[list[Item]] = []
    for group in groups.values():
        pieces = min(max(1, round(_work(group) / most)), len(group)) if most else 1
        ends = [len(group) * i // pieces for i in range(pieces + 1)]
        parts += [group[low:high] for low, high in pairwise(ends)]
    hands: list[list[Item]] = [[] for _ in range(count)]
    load = [0] * count
    for part in sorted(parts, key=_work, reverse=True):  # stable, so all ranks deal alike
        least = load.index(min(load))
        hands[least] += part
        load[least] += _work(part)
    return hands


def _work(group: Sequence[Item]) -> int:
    """Characters to read, the shared prefix once."""
    if not group:
        return 0
    return len(group[0].prompt.prefix) + sum(1 + len(item.prompt.text) for item in group)
