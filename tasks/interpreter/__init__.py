"""Trusted code that runs in a session beside a model's own: what the agents' tasks check with.

Its modules are sent as text and made modules of the session there; nothing here imports them. Code
of a model may tamper with them, since it runs in the same process.
"""

from functools import cache
from pathlib import Path


@cache
def module_cell(name: str) -> str:
    """A cell that makes a file of this folder the session's module of that name, and leaves no
    name of its own behind."""
    source = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    make = f"exec(compile({source!r}, {name!r}, 'exec'), found.__dict__)"
    return (
        "def _make_module():\n"
        "    import sys, types\n"
        f"    found = sys.modules[{name!r}] = types.ModuleType({name!r})\n"
        f"    {make}\n"
        "_make_module()\n"
        "del _make_module\n"
    )
