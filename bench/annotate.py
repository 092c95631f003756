"""The annotation pages under load: many visitors vote at once, and the server is killed meanwhile.

    python -m bench.annotate --visitors 50 --votes 100 --kills 1
    python -m bench.annotate --visitors 50 --votes 30 --kills 0 --pace 2

Makes a study, serves it by `qwen-eval annotate serve` as a process of its own, and sends visitors
(bench/visitors.py) with invitations. Each kill is a SIGKILL, after an equal share of the votes; the
server then starts again on its port. Every twentieth choice is pressed twice.

Afterwards the database is held against what each visitor saw. Lost: the page went on to the next
pair and the vote is not there. Altered: it is there with another choice, or its answers stood on
the other sides. Doubled: a vote that nobody pressed, or of one visitor more unconfirmed ones than
kills. A vote is timed from the press until the next pair is on the page as a whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import select

from bench.visitors import Press, Visitor
from qwen_eval.human_eval_ui.store import access
from qwen_eval.human_eval_ui.store.store import Store, open_store
from qwen_eval.human_eval_ui.store.tables import ASSIGNMENT, VOTE
from qwen_eval.human_eval_ui.study import making
from qwen_eval.human_eval_ui.study.spec import Study

SYSTEMS = ("north", "south")
SPARE = 20  # items beyond the votes of one visitor, so that a next pair always follows
TWICE = 0.05
START_SECONDS = 60.0


@dataclass(frozen=True)
class Load:
    """Who votes how often. `pace`: seconds between a pair and its vote; 0 as fast as pages come."""

    visitors: int = 50
    votes: int = 100
    pace: float = 0.0
    kills: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    """The database against the visitors; all counts of votes. `unsure`: on their way at a kill and
    kept."""

    votes: int
    lost: int
    altered: int
    doubled: int
    unsure: int


@dataclass(frozen=True)
class Measured:
    """One load. Quantiles in seconds of confirmed votes; the server's processor seconds are of all
    its processes, without starting, its memory is the peak of one."""

    load: Load
    verdict: Verdict
    p50: float
    p95: float
    slowest: float
    seconds: float
    votes_per_second: float
    server_processor: float
    server_mebibytes: float


def main() -> None:
    """Print what one load did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--votes", type=int, default=100, help="of each visitor")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds before each vote")
    parser.add_argument("--kills", type=int, default=1, help="SIGKILLs of the server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    load = Load(options.visitors, options.votes, options.pace, options.kills, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), load))
    print(json.dumps(asdict(found), indent=1) if options.json else _table(found))


async def measure(folder: Path, load: Load) -> Measured:
    """Put a load on a study of its own in the folder."""
    study = study_for(folder, load)
    server = Server(study.folder, _free_port())
    visitors: dict[str, Visitor] = {}
    with closing(open_store(study)) as store:
        for i in range(load.visitors):
            token = access.invite(store, name := f"visitor {i}")
            visitors[name] = Visitor(
                server.url, token, load.votes, pace=load.pace, twice=TWICE, seed=load.seed + i
            )
    try:
        await server.start()
        await asyncio.gather(*(visitor.join() for visitor in visitors.values()))
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for visitor in visitors.values():
                group.create_task(visitor.visit())
            group.create_task(_kill(server, list(visitors.values()), load))
        seconds = time.perf_counter() - began
    finally:
        await server.end(signal.SIGTERM)
    with closing(open_store(study)) as store:
        verdict = compared(store, visitors, load.kills)
    waits = [p.seconds for one in visitors.values() for p in one.presses if p.confirmed]
    p50, p95, slowest = map(float, np.quantile(waits, (0.5, 0.95, 1)))
    rate = len(waits) / seconds
    return Measured(load, verdict, p50, p95, slowest, seconds, rate, server.processor, server.peak)


async def _kill(server: Server, visitors: Sequence[Visitor], load: Load) -> None:
    total = load.visitors * load.votes
    for kill in range(1, load.kills + 1):
        while sum(visitor.given for visitor in visitors) < kill * total / (load.kills + 1):
            await asyncio.sleep(0.01)
        await server.end(signal.SIGKILL)
        await server.start()


class Server:
    """`qwen-eval annotate serve` of a study. `processor` in seconds, without those of starting, and
    `peak` in MiB are known of processes that have ended."""

    def __init__(self, study: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.processor = self.peak = 0.0
        self._log = study.parent / "server.log"
        self._command = [sys.executable, "-m", "qwen_eval", "annotate", "serve", str(study)]
        self._command += ["--port", str(port)]
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = 0.0

    async def start(self) -> None:
        """Returns when it answers. Raises RuntimeError, with its last words, where it does not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        limit = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(base_url=self.url) as client:
            while time.monotonic() < limit and self._process.poll() is None:
                try:
                    if (await client.get("/_stcore/health")).is_success:
                        self._starting = _processor_seconds(self._process.pid)
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise RuntimeError(self._log.read_text(errors="replace")[-2000:])

    async def end(self, how: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(how)
        _, status, usage = await asyncio.to_thread(os.wait4, process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.processor += usage.ru_utime + usage.ru_stime - self._starting
        self.peak = max(self.peak, usage.ru_maxrss / 1024)


def compared(store: Store, visitors: Mapping[str, Visitor], kills: int) -> Verdict:
    """What the database holds against what each visitor, by name, saw."""
    with store.reading() as connection:
        rows = list(connection.execute(select(ASSIGNMENT, VOTE).join(VOTE)).mappings())
    kept: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        kept[row["annotator"]][row["assignment"]] = row
    lost = altered = doubled = unsure = 0
    for name, visitor in visitors.items():
        person = access.named(store, name)
        mine = kept.pop(person.id, {}) if person else {}
        # What was pressed again after a kill had not been kept before.
        pressed = {press.pair.assignment: press for press in visitor.presses}
        lost += sum(press.passed and name not in mine for name, press in pressed.items())
        doubled += len(mine.keys() - pressed.keys())
        both = mine.keys() & pressed.keys()
        altered += sum(not _as_pressed(store, mine[name], pressed[name]) for name in both)
        unconfirmed = sum(not pressed[name].confirmed for name in both)
        unsure += unconfirmed
        doubled += max(0, unconfirmed - kills)
    doubled += sum(map(len, kept.values()))  # of people who were never there
    return Verdict(len(rows), lost, altered, doubled, unsure)


def _as_pressed(store: Store, row: Any, press: Press) -> bool:
    """Whether a vote has the choice, and its answers stood where it says: each begins with a
    sentence of its own, which only a damaged one has lost."""
    pair = store.pairs[row["pair"]]
    sides = press.pair.left, press.pair.right
    first, second = reversed(sides) if row["swapped"] else sides
    if row["choice"] != press.choice or _opening(pair.item, pair.first) not in first:
        return False
    if pair.gold:
        return _opening(pair.item, pair.first) not in second
    return _opening(pair.item, pair.second) in second


def study_for(folder: Path, load: Load) -> Study:
    """As many pairs as a visitor votes on, and all for each; answers as long as real ones."""
    rows = [
        {
            "id": f"i{i:04}",
            "category": ("knowledge", "writing", "coding")[i % 3],
            "text": f"第 {i} 题：请说明水为什么会结冰，并举两个生活中的例子。",
            "answers": {system: _answer(f"i{i:04}", system) for system in SYSTEMS},
        }
        for i in range(load.votes + SPARE)
    ]
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    rules = making.Rules(name="load", overlap=load.visitors, dwell=0.0)
    return making.make_study(folder / "study", making.from_lines(path, rules), SYSTEMS[0], rules)


def _opening(item: str, system: str) -> str:
    return f"回答编号{item}x{SYSTEMS.index(system)}，水温降到零度以下时开始结冰。"


def _answer(item: str, system: str) -> str:
    said = "水分子在低温下运动变慢，氢键把它们排成六角形的晶格，所以冰的密度比水小，会浮在水面上。"
    listed = "\n".join(f"{n}. **例子{n}**：{said}" for n in range(1, 4))
    return f"{_opening(item, system)}\n\n{said * 4}\n\n{listed}\n\n```\nfreeze(water, -1)\n```\n"


def _processor_seconds(pid: int) -> float:
    """What a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _table(found: Measured) -> str:
    load, verdict = found.load, found.verdict
    return "\n".join(
        (
            f"{load.visitors} visitors, {load.votes} votes each, {load.pace:g} s before each, "
            f"{load.kills} kills",
            f"  votes     {verdict.votes} kept, {verdict.lost} lost, {verdict.altered} altered, "
            f"{verdict.doubled} doubled, {verdict.unsure} kept and not confirmed",
            f"  a vote    p50 {found.p50:.3f} s, p95 {found.p95:.3f} s, at most "
            f"{found.slowest:.3f} s",
            f"  all       {found.seconds:.1f} s, {found.votes_per_second:.1f} votes/s",
            f"  server    {found.server_processor:.1f} s of processor "
            f"({1000 * found.server_processor / max(verdict.votes, 1):.1f} ms a vote), "
            f"{found.server_mebibytes:.0f} MiB",
        )
    )


if __name__ == "__main__":
    main()
