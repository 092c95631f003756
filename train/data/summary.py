"""What the stages of a corpus kept and dropped: a table for a terminal, a page with samples.

Reads the stages' folders only. Text of documents is escaped and shown, never run.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl, text_hash, write_atomic

from .pipeline import HELD_OUT, STAGES
from .stage import Counts, Folder

# Samples on the page of every reason, and characters of each.
SAMPLES, SHOWN = 3, 600


@dataclass(frozen=True)
class Summary:
    """The finished stages in order, with their counts."""

    stages: dict[str, Counts]
    out: Path

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {name: counts.record() for name, counts in self.stages.items()}


def summarise(out: Path) -> Summary:
    """The counts of what is finished in a corpus folder. Raises UserError where nothing is."""
    folders = [Folder(out / name) for name in STAGES]
    stages = {f.name: f.counts() for f in folders if (f.path / "DONE").exists()}
    if not stages:
        raise UserError(f"{out}: no finished stage; make one with `qwen-eval train data`")
    return Summary(stages, out)


def table(summary: Summary) -> str:
    """Lines of text: every stage with what it kept, and every reason with what it dropped."""
    lines = [f"{'':<44}{'documents':>12}{'characters':>16}{'dropped':>11}"]
    for name, counts in summary.stages.items():
        kept, gone = counts.kept.total(), counts.dropped.total()
        share = gone / (kept + gone) if kept + gone else 0.0
        lines.append(
            f"{name:<44}{kept:>12,}{counts.characters.total():>16,}{gone:>11,}  {share:.1%}"
            + (" held out, not dropped" if name == HELD_OUT else "")
        )
        for (filter_, reason), count in reasons(counts).most_common():
            lines.append(f"  {filter_ + ': ' + reason:<70}{count:>11,}")
    return "\n".join(lines) + "\n"


def reasons(counts: Counts) -> Counter[tuple[str, str]]:
    """Documents dropped by filter and reason, over all sources."""
    found: Counter[tuple[str, str]] = Counter()
    for (filter_, reason, _), count in counts.dropped.items():
        found[filter_, reason] += count
    return found


def write_page(path: Path, summary: Summary, *, seed: int) -> None:
    """One HTML file that asks nobody for anything: counts, reasons, sources and samples."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("qwen_eval.train.data", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    stages = []
    for name, counts in summary.stages.items():
        samples = _samples(Folder(summary.out / name).dropped(), seed)
        stages.append(
            {
                "name": name,
                "taken": "held out" if name == HELD_OUT else "dropped",
                "kept": counts.kept.total(),
                "characters": counts.characters.total(),
                "dropped": counts.dropped.total(),
                "sources": _sources(counts),
                "reasons": [
                    {"filter": key[0], "reason": key[1], "count": count, "samples": samples[key]}
                    for key, count in reasons(counts).most_common()
                ],
            }
        )
    page = environment.get_template("page.html").render(stages=stages, shown=SHOWN)
    write_atomic(path, page)


def _sources(counts: Counts) -> list[dict[str, Any]]:
    dropped: Counter[str] = Counter()
    for (_, _, source), count in counts.dropped.items():
        dropped[source] += count
    return [
        {
            "name": name,
            "kept": counts.kept[name],
            "characters": counts.characters[name],
            "dropped": dropped[name],
        }
        for name in sorted(counts.kept | dropped)
    ]


def _samples(shards: Iterable[Path], seed: int) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """A few records of every reason: those whose hashes with the seed are least, which is the same
    draw however the corpus is cut."""
    least: dict[tuple[str, str], list[tuple[str, str, dict[str, Any]]]] = {}
    for shard in shards:
        for record in read_jsonl(shard):
            key = record["filter"], record["reason"]
            drawn = text_hash(f"{seed} {record['id']}")
            entry = (drawn, record["id"], record | {"text": record["text"][: SHOWN + 1]})
            least[key] = heapq.nsmallest(SAMPLES, [*least.get(key, ()), entry], key=lambda e: e[:2])
    return {key: [record for _, _, record in entries] for key, entries in least.items()}
