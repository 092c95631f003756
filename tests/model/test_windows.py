"""Windows layer by layer: the schedule's properties, and the words of `--window-sizes`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.model.windows import in_bands, schedule, windows_of


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(1, 80), st.integers(1, 40000))
def test_the_schedule_grows_upwards(layers: int, trained: int) -> None:
    found = schedule(layers, trained)
    assert len(found) == layers
    assert found == tuple(sorted(found))
    assert found[-1] == pytest.approx(trained, abs=128 if trained >= 256 else 0)
    for window in found:
        assert window >= 1
        assert window % 256 == 0 or trained < 1024
    if layers >= 5 and trained >= 1024:
        assert found[0] == pytest.approx(trained / 4, abs=128)


def test_the_schedule_of_the_models_at_hand() -> None:
    assert schedule(5, 1024) == (256, 256, 512, 512, 1024)
    assert schedule(30, 8192) == (2048,) * 12 + (4096,) * 12 + (8192,) * 6
    assert [schedule(32, 2048).count(window) for window in (512, 1024, 2048)] == [12, 13, 7]


def test_each_layer_count_has_one() -> None:
    for layers in range(1, 81):
        assert len(schedule(layers, 2048)) == layers


def test_bands_lie_from_the_lowest_layer_up() -> None:
    assert in_bands([1, 2, None], 6) == (1, 1, 2, 2, None, None)
    assert in_bands([1, 2, None], 3) == (1, 2, None)
    assert in_bands([7], 3) == (7, 7, 7)
    assert in_bands([1, 2, 3, None], 2) == (2, None)
    assert in_bands([1, 2, 3, None], 1) == (None,)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(1, 80), st.data())
def test_every_entry_has_layers(layers: int, data: st.DataObject) -> None:
    entries = data.draw(st.integers(1, layers))
    found = in_bands(range(1, entries + 1), layers)
    assert list(dict.fromkeys(found)) == list(range(1, entries + 1))
    counts = [found.count(entry) for entry in set(found)]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("512", (512,) * 4),
        ("512,full", (512, 512, None, None)),
        ("1, 2,3 ,full", (1, 2, 3, None)),
        ("full", (None,) * 4),
        ("full,4096", (None, None, 4096, 4096)),
        ("0512", (512,) * 4),
    ],
)
def test_window_sizes_are_read(text: str, found: tuple[int | None, ...]) -> None:
    assert windows_of(text, 4, 4096) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "give tokens from 1 on or the word full") for text in ("0", "-4", "1.5", "", "٣")),
        *(
            (text, "give tokens from 1 on or the word full")
            for text in ("4,", "many", "4 4", "9e3")
        ),
        ("1,2,3,4,full", "5 windows for 4 layers; give at most one each"),
        ("512,4097", "4097 is more than the context of 4096 tokens"),
    ],
)
def test_window_sizes_that_are_none(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        windows_of(text, 4, 4096)
    assert str(caught.value).startswith(f"--window-sizes {text}: {said}")
    assert "\n" not in str(caught.value)
