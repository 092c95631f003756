"""Plain data over a pipe: what a candidate and the tests may say to each other.

A frame is a 4-byte big-endian length and that many bytes of JSON. JSON knows too few types, so a
value is a scalar (None, bool, str) or a pair [tag, content]. Nothing here runs code it receives:
no pickle, no eval, and a value decodes to types of Python's and nothing else, so that an object
with an `__eq__` of its own arrives as the plain value it pretends to be, or not at all.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from importlib import import_module
from typing import Any

ENDED = "the other side ended"
FRAME_LIMIT = 16 * 2**20
DEPTH_LIMIT = 64
# Numbers that their own text says exactly; their modules are loaded where one is met.
_EXACT = {"Decimal": "decimal", "Fraction": "fractions"}
_LENGTH = struct.Struct(">I")
_SEQUENCES: dict[str, Any] = {"l": list, "t": tuple, "s": set, "f": frozenset, "q": deque}
# What a test may turn into a list, or into whatever it compares with: never equal to one itself.
_VIEWS: dict[str, Any] = {"k": KeysView, "v": ValuesView, "e": ItemsView, "n": Iterator}


class BadFrameError(Exception):
    """The other side closed the pipe, or sent what is not a frame or not a value."""


def encode(value: Any, depth: int = 0) -> Any:
    """A value as JSON-ready data; subclasses become the type they derive from.

    Raises TypeError for a type that is not plain data, ValueError when nested over DEPTH_LIMIT.
    """
    if depth > DEPTH_LIMIT:
        raise ValueError(f"a value nested deeper than {DEPTH_LIMIT}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return ["i", hex(int.__int__(value))]
    if isinstance(value, float):
        return ["d", float.hex(value)]
    if isinstance(value, complex):
        return ["c", [value.real.hex(), value.imag.hex()]]
    if isinstance(value, bytes):
        return ["b", value.hex()]
    if isinstance(value, range):
        return ["r", [hex(value.start), hex(value.stop), hex(value.step)]]
    if isinstance(value, dict):
        pairs = [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]
        return ["m", pairs]
    if isinstance(value, bytearray):
        return ["a", value.hex()]
    for tag, kind in (_SEQUENCES | _VIEWS).items():
        if isinstance(value, kind):
            return [tag, [encode(element, depth + 1) for element in value]]
    name = type(value).__name__
    if _EXACT.get(name) == type(value).__module__:
        return ["x", [name, str(value)]]
    raise TypeError(f"a value of type {type(value).__name__}, which is not plain data")


def decode(data: Any, depth: int = 0) -> Any:
    """The value of what `encode` gave. Raises BadFrameError for anything else."""
    if depth > DEPTH_LIMIT:
        raise BadFrameError(f"a value nested deeper than {DEPTH_LIMIT}")
    if data is None or isinstance(data, (bool, str)):
        return data
    try:
        tag, content = data
        if tag == "i":
            return int(content, 16)
        if tag == "d":
            return float.fromhex(content)
        if tag == "c":
            real, imaginary = content
            return complex(float.fromhex(real), float.fromhex(imaginary))
        if tag == "b":
            return bytes.fromhex(content)
        if tag == "r":
            start, stop, step = (int(part, 16) for part in content)
            return range(start, stop, step)
        if tag == "m":
            return {decode(k, depth + 1): decode(v, depth + 1) for k, v in content}
        if tag == "a":
            return bytearray.fromhex(content)
        if tag == "x":
            name, text = content
            return getattr(import_module(_EXACT[name]), name)(text)
        elements = [decode(element, depth + 1) for element in content]
        return _view(tag, elements) if tag in _VIEWS else _SEQUENCES[tag](elements)
    except BadFrameError:
        raise
    except Exception as error:
        raise BadFrameError(f"not a value: {type(error).__name__}") from None


def _view(tag: str, elements: list[Any]) -> Any:
    if tag == "k":
        return dict.fromkeys(elements).keys()
    if tag == "v":
        return dict(enumerate(elements)).values()
    return dict(elements).items() if tag == "e" else _Given(elements)


class _Given:
    """What an iterator gave, to be read once. Neither true nor false: a function that yields where
    it should answer is not to pass for one that says yes."""

    def __init__(self, elements: list[Any]) -> None:
        self._elements = iter(elements)

    def __iter__(self) -> Iterator[Any]:
        return self._elements

    def __next__(self) -> Any:
        return next(self._elements)

    def __bool__(self) -> bool:
        raise TypeError("an iterator is neither true nor false")


def frame(body: bytes) -> bytes:
    """A message's bytes with their length before them. Raises ValueError over FRAME_LIMIT."""
    if len(body) > FRAME_LIMIT:
        raise ValueError(f"a value of {len(body) / 2**20:.0f} MiB, over {FRAME_LIMIT >> 20} MiB")
    return _LENGTH.pack(len(body)) + body


def complete(received: bytes | bytearray) -> Any:
    """The message that begins what was received, None while it is not whole. Raises
    BadFrameError."""
    if len(received) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(received)
    if length > FRAME_LIMIT:
        raise BadFrameError("a frame over the limit")
    if len(received) < _LENGTH.size + length:
        return None
    return _parse(bytes(received[_LENGTH.size : _LENGTH.size + length]))


def write_frame(fd: int, message: Any) -> None:
    """Send one JSON-ready message. Raises ValueError over FRAME_LIMIT bytes, OSError."""
    write_all(fd, frame(json.dumps(message).encode("ascii")))


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, in as many parts as the kernel takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def say(fd: int, verdict: str, text: str) -> None:
    """One line on the pipe of verdicts, which nobody waits on: started, passed or failed."""
    os.write(fd, (json.dumps([verdict, text]) + "\n").encode("ascii"))


def read_frame(fd: int) -> Any:
    """Receive one message. Raises BadFrameError."""
    (length,) = _LENGTH.unpack(_read_exactly(fd, _LENGTH.size))
    if length > FRAME_LIMIT:
        raise BadFrameError("a frame over the limit")
    return _parse(_read_exactly(fd, length))


def read_job(fd: int) -> dict[str, Any]:
    """The whole of a file that the harness wrote for this process alone."""
    with open(fd, "rb") as file:
        content: dict[str, Any] = json.loads(file.read())
    return content


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadFrameError("a frame that is not JSON") from None


def _read_exactly(fd: int, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(fd, min(count - len(parts), 1 << 20))
        if not part:
            raise BadFrameError(ENDED)
        parts += part
    return bytes(parts)
