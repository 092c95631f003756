"""The codec carries plain data exactly, and turns anything else into BadFrameError."""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.sandbox.codec import (
    DEPTH_LIMIT,
    FRAME_LIMIT,
    BadFrameError,
    decode,
    encode,
    read_frame,
    write_frame,
)

hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
plain: st.SearchStrategy[Any] = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.tuples(inner)
        | st.builds(deque, st.lists(inner, max_size=3))
    ),
    max_leaves=12,
)


def _shape(value: Any) -> Any:
    """A value with its types, so that True is not 1 and 0.0 is not -0.0."""
    if isinstance(value, dict):
        return dict, [(_shape(k), _shape(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return type(value), [_shape(element) for element in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(_shape(element)) for element in value)
    return type(value), repr(value)


@given(plain)
def test_round_trip_keeps_values_and_types(value: Any) -> None:
    assert _shape(decode(json.loads(json.dumps(encode(value))))) == _shape(value)


def test_round_trip_of_awkward_numbers() -> None:
    assert math.isnan(decode(encode(math.nan)))
    assert decode(encode(10**5000)) == 10**5000, "beyond the decimal digits Python parses"
    assert decode(encode(range(3, -9, -2))) == range(3, -9, -2)
    assert decode(encode("\ud800")) == "\ud800", "a lone surrogate"


class _Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__

    def __index__(self) -> int:
        return 42


def test_a_subclass_arrives_as_the_plain_value() -> None:
    value = decode(encode(_Liar(7)))
    assert type(value) is int
    assert value == 7
    pair = namedtuple("pair", "a b")
    assert _shape(decode(encode([pair(1, 2), Counter("aa"), OrderedDict(x=1)]))) == _shape(
        [(1, 2), {"a": 2}, {"x": 1}]
    )
    assert type(decode(encode(defaultdict(int, a=1)))) is dict


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (iter([1, 2]), list),
        (map(abs, [-1, 2]), list),
        ((n for n in range(3)), tuple),
        ({1: 2, 3: 4}.values(), list),
        (enumerate("ab"), dict),
    ],
)
def test_an_iterator_arrives_as_one_and_is_no_list(value: Any, read: Any) -> None:
    (kept, sent) = itertools.tee(value) if isinstance(value, Iterator) else (value, value)
    found = decode(json.loads(json.dumps(encode(sent))))
    expected = read(kept)
    assert found != expected, "as before it was sent"
    if isinstance(value, Iterator):
        with pytest.raises(TypeError, match="neither true nor false"):
            bool(found)
    assert read(found) == expected


def test_views_of_a_dict_and_exact_numbers() -> None:
    table = {"b": 1, "a": 2}
    keys, items = decode(encode(table.keys())), decode(encode(table.items()))
    assert (keys, items) == (table.keys(), table.items())
    assert keys == {"a", "b"}
    assert list(items) == [("b", 1), ("a", 2)]
    for value in (Decimal("0.10"), Decimal("NaN"), Fraction(-3, 7), bytearray(b"\x00x")):
        found = decode(json.loads(json.dumps(encode(value))))
        assert (type(found), repr(found)) == (type(value), repr(value))


def test_a_class_that_takes_a_number_s_name_is_refused() -> None:
    class Decimal:
        __module__ = "decimal"

        def __str__(self) -> str:
            return "__import__('os')"

    with pytest.raises(BadFrameError):
        decode(encode(Decimal()))
    with pytest.raises(BadFrameError):
        decode(["x", ["system", "true"]])


@pytest.mark.parametrize("value", [object(), len, [lambda: 0], {1: object()}])
def test_what_is_not_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="not plain data"):
        encode(value)


def test_depth_is_capped_on_both_sides() -> None:
    nested: list[Any] = []
    data: Any = ["l", []]
    for _ in range(DEPTH_LIMIT + 1):
        nested = [nested]
        data = ["l", [data]]
    with pytest.raises(ValueError, match="nested"):
        encode(nested)
    with pytest.raises(BadFrameError, match="nested"):
        decode(data)


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(json_data)
def test_any_json_decodes_to_plain_data_or_is_refused(data: Any) -> None:
    try:
        value = decode(data)
    except BadFrameError:
        return
    encode(value)


def _through_a_pipe(raw: bytes) -> Any:
    reading, writing = os.pipe()

    def send() -> None:
        os.write(writing, raw)
        os.close(writing)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return read_frame(reading)
    finally:
        sender.join()
        os.close(reading)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_refused(raw: bytes) -> None:
    try:
        message = _through_a_pipe(raw)
    except BadFrameError:
        return
    assert json.loads(raw[4 : 4 + int.from_bytes(raw[:4], "big")]) == message


def test_frames_are_bounded() -> None:
    with pytest.raises(BadFrameError, match="limit"):
        _through_a_pipe((FRAME_LIMIT + 1).to_bytes(4, "big"))
    bomb = b"[" * 50_000
    with pytest.raises(BadFrameError, match="JSON"):
        _through_a_pipe(len(bomb).to_bytes(4, "big") + bomb)
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match="over 16 MiB"):
        write_frame(writing, "x" * FRAME_LIMIT)
    os.close(reading)
    os.close(writing)
