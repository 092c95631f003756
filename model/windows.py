"""Attention windows that differ from layer to layer (paper, section 2.5): short below, long above.

The paper publishes no window, and the released code has none; the schedule here is this project's
own. Few distinct windows are wanted: the engine keeps memory for each apart. Knows nothing of how
attention is computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_eval.errors import UserError

# The schedule: layers in bands of equal count whose windows double from band to band.
SHORTEST = 0.5  # the lowest band's window as a share of the trained length
BANDS = 4
LAST_IS_FULL = True  # the uppermost band sees everything

_MULTIPLE = 256  # of which windows are, where the trained length is long enough


def schedule(num_layers: int, trained_length: int) -> tuple[int | None, ...]:
    """A window for each layer, lowest first; None is full attention.

    With S the trained length: S/2, S, 2S and full, over a quarter of the layers each. The uppermost
    layer always belongs to the uppermost band.
    """
    share = SHORTEST * trained_length
    whole = share >= _MULTIPLE
    shortest = round(share / _MULTIPLE) * _MULTIPLE if whole else max(round(share), 1)
    windows: list[int | None] = [shortest * 2**band for band in range(BANDS)]
    return in_bands([*windows[:-1], None] if LAST_IS_FULL else windows, num_layers)


def in_bands(windows: Sequence[int | None], num_layers: int) -> tuple[int | None, ...]:
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
