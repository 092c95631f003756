"""The pictures of docs/human_eval.md: pages of a made-up study in a browser, and its figure.

    python -m bench.study_pictures --out docs

The answers on the annotator's page were written for the picture, and votes are drawn from a law:
what is shown is how a study looks, not how any model does. Needs a Chromium.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from qwen_eval.human_eval_ui import exporting
from qwen_eval.human_eval_ui.findings.figure import figure4
from qwen_eval.human_eval_ui.instructions import load_instructions
from qwen_eval.human_eval_ui.store import access, assigning, owning, voting
from qwen_eval.human_eval_ui.store.store import Store, open_store
from qwen_eval.human_eval_ui.store.voting import Ballot
from qwen_eval.human_eval_ui.study import making
from qwen_eval.human_eval_ui.study.making import Gathered, Line, Rules
from qwen_eval.human_eval_ui.study.spec import System

BASE, SYSTEMS = "baseline", ("model-1", "model-2")
# Log-odds against the baseline, by category as far as it differs.
STRENGTHS = {"model-1": -0.3, "model-2": 0.5}
CATEGORIES = {"coding": -0.9, "understanding": 0.3, "writing": 0.2}
SHOWN = {
    "k005": (
        "星星没有回家睡觉哦，它们白天也一直挂在天上呢。\n\n只是白天的太阳太亮啦，把整个天空都照得亮堂堂的，"
        "星星那一点点光就看不见了。就像你在太阳底下打开手电筒，几乎看不出它亮着；可是到了晚上关了灯，"
        "同一支手电筒就特别亮。\n\n等太阳下山，天黑了，星星就又能被我们看见了。",
        "星星白天**并没有**回家睡觉。\n\n- 恒星本身会发光，昼夜不停\n"
        "- 白天由于*瑞利散射*，大气层散射太阳光，天空背景亮度远高于星光\n"
        "- 因此人眼无法分辨星星\n\n所以，星星一直都在，只是白天看不到。",
    )
}


class Clock:
    """Seconds that pass when they are told to."""

    now = time.time() - 86400.0

    def __call__(self) -> float:
        """What the store asks."""
        return self.now


def study_of(folder: Path, only: tuple[str, ...] = ()) -> Any:
    """All instructions, or some, with answers that only have a length."""
    chance = random.Random(1)
    lines = []
    for each in load_instructions():
        if only and each.id not in only:
            continue
        texts = (
            SHOWN[each.id]
            if only
            else ["这是为插图准备的回答。" * chance.randint(3, 9) for _ in range(3)]
        )
        names = (BASE, *SYSTEMS)[: len(texts)]
        answers = dict(zip(names, texts, strict=True))
        lines.append(Line(each.id, each.category, each.text, answers, each.difficulty, each.points))
    names = tuple(lines[0].answers)
    rules = Rules(control_every=12, gold=12, dwell=0.0)
    gathered = Gathered(lines, tuple(System(name, "", "") for name in names))
    return making.make_study(folder, gathered, BASE, rules)


def vote(store: Store, clock: Clock, people: dict[str, str], share: float) -> None:
    """Votes of all people on a share of what there is, by Bradley and Terry's law with ties."""
    chance = random.Random(2)
    wanted = int(share * store.study.spec.overlap * len(store.pairs.regular))
    leanings = {item: chance.gauss(0, 1.2) for item in store.study.items}
    for number in range(wanted):
        person = list(people.values())[number % len(people)]
        one = assigning.next_assignment(store, person)
        if not isinstance(one, assigning.Assignment):
            continue
        pair = store.pairs[one.pair]
        system = pair.second if pair.first == BASE else pair.first
        strength = STRENGTHS.get(system, 0.0) + leanings[pair.item] + chance.gauss(0, 1.0)
        strength += CATEGORIES.get(store.study.items[pair.item].category, 0.0)
        towards = -strength if pair.first == system else strength
        if pair.gold:
            towards = -2.0
        choice = max(-2, min(2, round(towards)))
        clock.now += chance.uniform(9, 30)
        bad = chance.random() < 0.08
        voting.cast(store, person, one.id, Ballot(-choice if one.swapped else choice, bad))


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The pages without sign-in, and their address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["annotate", "serve", str(folder), "--port", str(port), "--solo"]
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen_eval", *words], stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://localhost:{port}"
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    return process, address


def shoot(folder: Path, page: str, out: Path, width: int, height: int, locale: str) -> None:
    """A page as it is seen."""
    from playwright.sync_api import sync_playwright

    process, address = serve(folder)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            view = browser.new_page(viewport={"width": width, "height": height}, locale=locale)
            view.goto(f"{address}/{page}")
            view.locator(".stMainBlockContainer h1, .asked").first.wait_for()
            view.locator(".stApp[data-test-script-state=notRunning]").wait_for()
            # What the browser has not drawn yet is a grey box.
            view.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
            view.wait_for_timeout(3000)
            view.screenshot(path=out)
            browser.close()
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Write the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as temporary:
        few = study_of(Path(temporary) / "few", ("k005",))
        shoot(few.folder, "", out / "annotate.png", 1280, 900, "zh-CN")
        clock = Clock()
        store = open_store(study_of(Path(temporary) / "all"), clock=clock)
        people = {}
        for name in ("林晓", "周明", "陈岚"):
            access.invite(store, name)
            person = access.named(store, name)
            assert person is not None
            people[name] = person.id
        vote(store, clock, people, 0.6)
        shoot(store.study.folder, "progress", out / "annotate_owner.png", 1280, 900, "en-US")
        vote(store, clock, people, 0.6)
        owning.set_state(store, "closed", owning.COMMAND_LINE)
        owning.set_state(store, "unblinded", owning.COMMAND_LINE)
        figure = figure4(exporting.findings_of(store))
        (out / "figure4.svg").write_text(figure, encoding="utf-8")
        store.close()


if __name__ == "__main__":
    main()
