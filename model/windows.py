"""Attention windows that differ from layer to layer (paper, section 2.5): short below, long above.

The paper publishes no window, and the released code has none; the schedule here is this project's
own. Few distinct windows are wanted: the engine keeps memory for each apart. Knows nothing of how
attention is computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from qwen_eval.errors import UserError

Window = TypeVar("Window")

# The schedule: windows of bands of layers, lowest first, as shares of the trained length, and how
# many tokens at the start of a text every layer goes on seeing. Drawn from what bench/windows.py
# measures (docs/context.md): deeper models lean on a text's first token from their middle on.
SHARES = (0.25, 0.25, 0.5, 0.5, 1.0)
SINKS = 4

_MULTIPLE = 256  # of which windows are, where the trained length is long enough


def schedule(num_layers: int, trained_length: int) -> tuple[int, ...]:
    """A window for each layer, lowest first.

    With S the trained length: S/4 in the lower two fifths of the layers, S/2 in the next two, S in
    the uppermost.
    """

    def window(share: float) -> int:
        tokens = share * trained_length
        whole = tokens >= _MULTIPLE
        return round(tokens / _MULTIPLE) * _MULTIPLE if whole else max(round(tokens), 1)

    return in_bands([window(share) for share in SHARES], num_layers)


def in_bands(windows: Sequence[Window], num_layers: int) -> tuple[Window, ...]:
    """Spread windows, lowest first, over the layers in bands whose counts differ by one at most.

    Where there are fewer layers than windows some are left out, and never the last.
    """
    last, count = len(windows) - 1, len(windows)
    below = range(num_layers - 1, -1, -1)  # layers above this one
    return tuple(windows[last - above * count // num_layers] for above in below)


def windows_of(text: str, num_layers: int, max_length: int) -> tuple[int | None, ...]:
    """`--window-sizes`: `512`, or `512,1024,full` from the lowest layers up → one per layer.

    Raises UserError for what is no window, for one beyond the context, and for more windows than
    layers.
    """
    windows: list[int | None] = []
    for word in (part.strip() for part in text.split(",")):
        if word == "full":
            windows.append(None)
        elif not re.fullmatch(r"0*[1-9]\d{0,8}", word, re.ASCII):
            raise UserError(
                f"--window-sizes {text}: give tokens from 1 on or the word full, such as "
                "512,1024,full"
            )
        elif int(word) > max_length:
            raise UserError(
                f"--window-sizes {text}: {word} is more than the context of {max_length} tokens; "
                "say full, or raise --max-length"
            )
        else:
            windows.append(int(word))
    if len(windows) > num_layers:
        raise UserError(
            f"--window-sizes {text}: {len(windows)} windows for {num_layers} layers; give at most "
            "one each"
        )
    return in_bands(windows, num_layers)
