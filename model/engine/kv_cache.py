"""How the memory for keys and values is shared out among layers.

Layers that attend through the same window have one pool of pages. A sequence of any length holds
no more of a windowed pool than its window reaches over, so such pools stay small, and what is left
of the memory goes to full attention. Knows nothing of requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config import ModelConfig
from .pages import PagePool, page_bytes

BRANCHES = 4  # pages per sequence for answers scored side by side
FEWEST = 8  # sequences that a window's pool has room for: one with many branches, stored prefixes


@dataclass(frozen=True)
class _Share:
    """The layers of one window, and the pages that all sequences together need of them at most,
    None where that grows with their length."""

    window: int | None
    layers: tuple[int, ...]
    ring: int | None
    most: int | None

    def count(self, pages: int) -> int:
        """Its part where full attention has so many pages."""
        return pages if self.most is None else min(pages, self.most)


def ring_pages(window: int, chunk: int, size: int, sinks: int = 0) -> int:
    """Pages that `chunk` new tokens and all that the first of them sees may lie on, the page of
    the first `sinks` tokens among them."""
    return (window + chunk - 3) // size + 2 + (sinks > 0)


@dataclass(frozen=True)
class CacheShape:
    """What decides how many pages there are: the model's windows, up to `sequences` at a time,
    prompts read `chunk` tokens at a time, `spare`, the share of pages set aside for stored
    prefixes."""

    config: ModelConfig
    size: int
    sequences: int
    chunk: int
    spare: float
    dtype: torch.dtype

    def shares(self) -> list[_Share]:
        """One per distinct window, in the order of their first layers."""
        config = self.config
        windows = [config.window(layer) for layer in range(config.num_layers)]
        longest = -(-config.max_length // self.size)
        shares = []
        for window in dict.fromkeys(windows):
            layers = tuple(i for i, w in enumerate(windows) if w == window)
            ring = None
            if window is not None:
                ring = ring_pages(window, self.chunk, self.size, config.sinks)
            if ring is None or ring >= longest:
                shares.append(_Share(window, layers, None, None))
                continue
            # But for few sequences, no more than one text takes without a window.
            most = max(self._most(self.sequences, ring), min(self._most(FEWEST, ring), longest))
            shares.append(_Share(window, layers, ring, most))
        return shares

    def _most(self, sequences: int, ring: int) -> int:
        """Pages for rings, slots and branches, and the spare share on top."""
        return int(sequences * (ring + 1 + BRANCHES) / (1 - self.spare)) + 1

    def bytes(self, pages: int) -> int:
        """Memory where full attention has so many pages."""
        return sum(
            share.count(pages) * page_bytes(self.config, self.dtype, self.size, len(share.layers))
            for share in self.shares()
        )

    def pages(self, cache_bytes: int) -> int:
        """As many pages for full attention as fit the memory."""
        low, high = 0, cache_bytes // page_bytes(self.config, self.dtype, self.size, 1)
        while low < high:
            middle = (low + high + 1) // 2
            if self.bytes(middle) <= cache_bytes:
                low = middle
            else:
                high = middle - 1
        return low

    def pools(self, pages: int, slots: int, device: torch.device) -> list[PagePool]:
        """The memory itself."""
        return [
            PagePool(
                self.config,
                share.count(pages),
                self.size,
                slots,
                self.dtype,
                device,
                layers=share.layers,
                window=share.window,
                ring=share.ring,
                sinks=self.config.sinks,
            )
            for share in self.shares()
        ]
