"""The memory for keys and values: pages of a fixed number of positions, counted by their users.

Layers that attend through the same window share a pool. In the pool of full attention a sequence
owns pages for its whole life; where a window lets go of old keys it owns as many as the window
reaches over, and takes them in turn. Knows nothing of requests or of token ids.

Shapes: P pages, S positions per page, K key-value heads, D head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig

PAGE = 256  # also the page size that flash-attn's paged kernels want
STEP = 64  # a prompt's newest page is read in so many positions more at a time


@dataclass(frozen=True)
class Run:
    """Neighbouring pages of a sequence; `first` is the place of the first one among all its
    pages. `sink`: the page at place 0, where it is seen besides."""

    first: int = 0
    pages: tuple[int, ...] = ()
    sink: int | None = None

    @property
    def end(self) -> int:
        """The place behind the last one."""
        return self.first + len(self.pages)

    @property
    def held(self) -> tuple[int, ...]:
        """All of them."""
        return self.pages if self.sink is None else (self.sink, *self.pages)

    def page(self, place: int) -> int:
        """The page at a place."""
        if place >= self.first:
            return self.pages[place - self.first]
        assert place == 0
        assert self.sink is not None
        return self.sink


@dataclass
class PageTable:
    """Which pages of one pool hold a sequence's keys, by their place in it.

    The first are `stored`, another's. Its own follow from the place `begin` on; those that are not
    `lasting` are used in turn, since the window has let go of what they held. The first `fixed` of
    them last all the same.
    """

    stored: Run = Run()
    begin: int = 0
    own: list[int] = field(default_factory=list)
    lasting: bool = True
    fixed: int = 0

    def page(self, place: int) -> int:
        """The page at a place that can still be seen."""
        if place < self.begin:
            return self.stored.page(place)
        turn = place - self.begin
        if turn >= len(self.own):
            turn = self.fixed + (turn - self.fixed) % (len(self.own) - self.fixed)
        return self.own[turn]

    def lasts(self, place: int) -> bool:
        """Whether the page at a place holds the same tokens for good."""
        return self.lasting or place < self.begin + self.fixed


class PagePool:
    """`count` pages of `size` positions for the keys and values of `layers`, None for all.

    They attend through `window`, None for full attention, of which a sequence holds at most `ring`
    pages, and see the first `sinks` tokens besides. The first `slots` pages are given out by
    slot(), the rest by take(). Memory is touched only where it is written; the lowest free page is
    taken, so that sequences that go on side by side are read in one go and little memory is ever
    touched. `tainted`: some page may hold a figure that is not finite; such a one reaches whoever
    reads the page later even from behind a mask, so pages are then cleared before they are used
    again.
    """

    def __init__(
        self,
        config: ModelConfig,
        count: int,
        size: int,
        slots: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        layers: Sequence[int] | None = None,
        window: int | None = None,
        ring: int | None = None,
        sinks: int = 0,
    ) -> None:
        assert count >= slots
        layers = range(config.num_layers) if layers is None else layers
        self.window, self.ring = window, ring
        self.sinks = sinks if window is not None else 0
        shape = (len(layers), count, size, config.num_kv_heads, config.head_dim)
        self.keys = dict(zip(layers, _zeros(shape, dtype, device).unbind(), strict=True))
        self.values = dict(zip(layers, _zeros(shape, dtype, device).unbind(), strict=True))
        self.tainted = False
        self.count, self.size = count, size
        self.step = min(STEP, size)
        assert size % self.step == 0
        self._users = [0] * count
        # In ascending order, and so heaps.
        self._free = list(range(slots, count))
        self._free_slots = list(range(slots))

    @property
    def free(self) -> int:
        """Pages that take() can still give."""
        return len(self._free)

    def take(self) -> int:
        """A page for one user."""
        return self._taken(heappop(self._free))

    def slot(self) -> int:
        """A page for the newest tokens of one decoding sequence."""
        return self._taken(heappop(self._free_slots))

    def share(self, page: int) -> int:
        """Count one user more."""
        assert self._users[page] > 0
        self._users[page] += 1
        return page

    def give_back(self, page: int, *, slot: bool = False) -> None:
        """One user less; the last one frees it."""
        assert self._users[page] > 0
        self._users[page] -= 1
        if not self._users[page]:
            heappush(self._free_slots if slot else self._free, page)

    def clear(self, page: int, start: int, end: int) -> None:
        """Forget what part of a page held, if that might do harm."""
        if not self.tainted:
            return
        for layer in (*self.keys.values(), *self.values.values()):
            layer[page, start:end].zero_()

    def copy(self, source: int, target: int, positions: int) -> None:
        """The first positions of a page into another."""
        for layer in (*self.keys.values(), *self.values.values()):
            layer[target, :positions] = layer[source, :positions]

    def first_seen(self, position: int) -> int:
        """The place of the first page that a token at `position` sees."""
        return 0 if self.window is None else max(0, position - self.window + 1) // self.size

    def seen_places(self, position: int) -> list[int]:
        """The places of all pages before `position` that a token there sees, ascending."""
        low = self.first_seen(position)
        return [0] * bool(self.sinks and low) + list(range(low, -(-position // self.size)))

    def table(self, stored: Run, begin: int, own: list[int], places: int) -> PageTable:
        """The table of a sequence whose own pages have so many places to fill from `begin` on."""
        fixed = int(self.sinks > 0 and begin == 0)
        return PageTable(stored, begin, own, len(own) == places, fixed)

    def bounded(self, pages: int) -> int:
        """How many pages of its own a sequence holds that fills so many in turn."""
        return pages if self.ring is None else min(pages, self.ring)

    def read_end(self, position: int, *, whole: bool) -> int:
        """Where reading ends that begins at a page's start and takes in `position`."""
        step = self.size if whole else self.step
        return position - position % self.size + (position % self.size // step + 1) * step

    def write(self, layer: int, places_T: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> None:
        """Store tokens at `places_T`, page * size + position in it."""
        self.keys[layer].flatten(0, 1).index_copy_(0, places_T, k_TKD)
        self.values[layer].flatten(0, 1).index_copy_(0, places_T, v_TKD)

    def _taken(self, page: int) -> int:
        self._users[page] = 1
        return page


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that on a CPU take memory only as they are written over."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    lazy = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(lazy).view(dtype).view(shape)


def page_bytes(
    config: ModelConfig, dtype: torch.dtype, size: int = PAGE, layers: int | None = None
) -> int:
    """Memory of one page over so many layers, None for all."""
    layers = config.num_layers if layers is None else layers
    return size * 2 * layers * config.num_kv_heads * config.head_dim * dtype.itemsize
