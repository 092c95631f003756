"""Names and figures as a reader sees them. Names come from a study's files: they may hold
anything.
"""

from __future__ import annotations

from unicodedata import east_asian_width


def plain(name: str, most: int = 60) -> str:
    """On one line and cut to a length; characters that act (controls, those that turn or hide
    text, those that XML forbids) are shown as �."""
    line = "".join(letter if letter.isprintable() else "�" for letter in " ".join(name.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def fitted(name: str, most: int) -> str:
    """plain(), cut to so many columns, of which a Chinese letter takes two."""
    line = plain(name, most)
    while sum(1 + (east_asian_width(letter) in "WF") for letter in line) > most:
        line = line.removesuffix("…")[:-1] + "…"
    return line


def points(share: float) -> str:
    """A difference of shares in points, with its sign: +12.3, −4.0."""
    shown = f"{100 * share:+.1f}".replace("-", "−")
    return "0.0" if shown in ("+0.0", "−0.0") else shown


def percent(share: float) -> str:
    """41.7 for 0.417."""
    return f"{100 * share:.1f}"


def p_value(p: float) -> str:
    """With its sign of equality: `= 0.012`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
