"""The curve of a training run, as an SVG for its model card.

    python -m bench.curves RUN/log.jsonl model/checkpoints/loss.svg

Loss in nats per token, each point the mean of some steps, over tokens read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from qwen_eval.fileio import read_jsonl

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 52, 40
POINTS = 160
Point = tuple[float, float]


def main() -> None:
    """Draw it."""
    log, out = map(Path, sys.argv[1:])
    rows = list(read_jsonl(log, torn_end=True))
    loss = list(smoothed([(row["tokens"], row["loss"]) for row in rows]))
    out.write_text(drawn(loss), encoding="utf-8")


def smoothed(points: Sequence[Point]) -> Iterator[Point]:
    size = max(1, len(points) // POINTS)
    for start in range(0, len(points), size):
        block = points[start : start + size]
        yield block[-1][0], fmean(value for _, value in block)


def drawn(points: Sequence[Point]) -> str:
    """Two axes with round numbers, and the line."""
    most = points[-1][0]
    low = min(value for _, value in points) // 0.5 * 0.5
    high = -(-max(value for _, value in points) // 0.5) * 0.5

    def at(tokens: float, loss: float) -> Point:
        across = LEFT + (WIDTH - LEFT - 12) * tokens / most
        return across, 12 + (HEIGHT - BOTTOM - 12) * (high - loss) / (high - low)

    parts = []
    for step in range(int((high - low) * 2) + 1):
        value = low + step / 2
        if value == int(value):
            x, y = at(0, value)
            parts.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - 12}" stroke="#8884"/>')
            parts.append(
                f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
    for million in range(0, int(most / 1e6) + 1, 10):
        x, y = at(million * 1e6, low)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{million} M</text>')
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in points))
    parts.append(f'<path d="M{line}" fill="none" stroke="#2a6fdb" stroke-width="1.8"/>')
    parts.append(f'<text x="{WIDTH - 12}" y="{HEIGHT - 6}" text-anchor="end">tokens read</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">loss, nats per token</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="#777">'
    )
    return head + "".join(parts) + "</svg>\n"


if __name__ == "__main__":
    main()
