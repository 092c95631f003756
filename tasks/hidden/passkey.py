"""Keys of five digits, each to be hidden at every depth."""

from __future__ import annotations

import random

from . import DEPTHS, Rows

KEYS = 10


def rows(seed: str) -> Rows:
    """Every key at every depth; no key begins with 0 or has all digits equal."""
    rng, keys = random.Random(seed), dict[str, None]()
    while len(keys) < KEYS:
        key = str(rng.randrange(10_000, 100_000))
        if len(set(key)) > 1:
            keys[key] = None
    return [{"depth": depth, "key": key} for key in keys for depth in DEPTHS]
