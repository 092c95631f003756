"""Which prompts are answered: diverse and complex ones, as InsTag measures them (Lu et al. 2023,
arXiv 2308.07074: diversity is how many tags a set covers, complexity how many one prompt has).

Prompts are drawn in passes. In a pass, the next one is always that which brings most tags that the
pass has not seen (greedy maximum coverage); of several, that with most tags, then by a seeded draw.
A pass ends when nobody brings one, and the next begins with none seen. So every pass covers all
tags that are left with few prompts, and a common tag comes no more often than coverage needs it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence, Set

from qwen_eval.fileio import text_hash


def select(tags: Sequence[Set[str]], count: int, seed: int) -> list[int]:
    """Places of at most `count` prompts, in the order in which they are drawn. One without tags is
    never drawn."""
    chosen: list[int] = []
    left = {place for place, of_prompt in enumerate(tags) if of_prompt}
    lots = {place: text_hash(f"{seed} {place}") for place in left}
    while left and len(chosen) < count:
        covered: set[str] = set()
        # What a prompt brings only falls as a pass goes on: an entry that is still right when it
        # comes up is the best one.
        heap = [(-len(tags[p]), -len(tags[p]), lots[p], p) for p in left]
        heapq.heapify(heap)
        while heap and len(chosen) < count:
            brought, complexity, lot, place = heapq.heappop(heap)
            fresh = len(tags[place] - covered)
            if fresh and fresh == -brought:
                chosen.append(place)
                covered |= tags[place]
                left.remove(place)
            elif fresh:
                heapq.heappush(heap, (-fresh, complexity, lot, place))
    return chosen
