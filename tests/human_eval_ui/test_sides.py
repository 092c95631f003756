"""Sides and order come from the key alone, and are balanced."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.human_eval_ui.study import sides

KEYS = st.binary(min_size=32, max_size=32)


@given(KEYS, st.text(max_size=5), st.integers(0, 200))
def test_half_of_every_block_is_swapped(key: bytes, annotator: str, block: int) -> None:
    numbers = range(block * sides.BLOCK, (block + 1) * sides.BLOCK)
    swapped = [sides.swapped(key, annotator, ("a", "b"), number) for number in numbers]
    assert sum(swapped) == sides.BLOCK // 2


def test_every_arrangement_comes_equally_often() -> None:
    found = Counter(
        tuple(sides.swapped(bytes(32), "a", ("x", "y"), 4 * block + i) for i in range(4))
        for block in range(6000)
    )
    assert len(found) == 6
    # Binomial: 1,000 expected of each, standard deviation 29.
    assert all(abs(count - 1000) < 4 * 29 for count in found.values())


def test_the_parts_are_kept_apart() -> None:
    key = bytes(range(32))
    assert sides.draw(key, "ab", "c") != sides.draw(key, "a", "bc")
    assert sides.draw(key, "a") != sides.draw(key[::-1], "a")
    assert sides.name(key, "a") == sides.name(key, "a")
    assert len(sides.name(key, "a")) == 16


def test_a_draw_is_an_hmac() -> None:
    # RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?".
    told = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    found = sides.draw(b"Jefe", "what do ya want for nothing?")
    assert f"{found:016x}" == told[:16]
