"""The pages in a real browser: two people vote with keys and mouse, and every vote is checked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.human_eval_ui.store import owning, reading
from qwen_eval.human_eval_ui.store.store import open_store
from qwen_eval.human_eval_ui.study import making
from qwen_eval.human_eval_ui.study.spec import Study
from tests.human_eval_ui.made_study import lines, made_study, write_lines
from tests.human_eval_ui.served import Server
from tests.human_eval_ui.visitor import DWELL, Visitor, visit
from tests.reports.test_browser import browser

__all__ = ["browser"]
pytestmark = pytest.mark.slow


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return made_study(tmp_path, items=44, systems=("northwind", "southgate"),
                      baseline="northwind", overlap=2, dwell=DWELL)  # fmt: skip


@pytest.fixture
def server(study: Study) -> Iterator[Server]:
    server = Server(study.folder)
    yield server
    server.kill()


def kept(study: Study, visitors: dict[str, Visitor]) -> None:
    """Every press is a vote with the sides that were on the page, and there is no other vote."""
    store = open_store(study)
    named = {name: person for person, name in reading.people(store).items()}
    votes = reading.votes_of(store)
    store.close()
    for name, visitor in visitors.items():
        found = {}
        for vote in votes:
            if vote.annotator == named[name]:
                item = study.items[vote.item]
                both = (item.answers[vote.left].text, item.answers[vote.right].text)
                found[item.text, *both] = vote.choice
        assert found == visitor.pressed
    assert len(votes) == sum(len(visitor.pressed) for visitor in visitors.values())


def test_two_people_vote_through_reloads_and_kills(
    browser: Any, server: Server, study: Study
) -> None:
    one = visit(browser, server.link("甲"))
    two = visit(browser, server.link("乙"), viewport={"width": 1920, "height": 1080})
    visitors = {"甲": one, "乙": two}
    for visitor in visitors.values():
        visitor.wait_for(0)
    for number in range(40):
        key = "12345"[number % 5]
        one.vote(key)
        two.vote("54321"[number % 5], mouse=number % 2 == 0)
        if number == 12:
            before = one.shown()
            one.page.reload()
            one.wait_for(13)
            assert one.shown() == before
        if number == 20:
            # The same pair whatever happened to the server; the browser comes back by itself.
            before = two.shown()
            server.kill()
            server.start()
            for visitor in visitors.values():
                visitor.page.reload()
                visitor.wait_for(21)
            assert two.shown() == before
    kept(study, visitors)
    # What was pressed last can be taken back, and said otherwise.
    last = list(one.pressed)[-1]
    one.page.keyboard.press("u")
    one.wait_for(39)
    assert one.shown() == last
    one.vote("3")
    kept(study, visitors)
    # No system in what either browser was ever sent; the study is not unblinded.
    for visitor in visitors.values():
        sent = b"".join(visitor.seen)
        assert len(sent) > 10_000
        for name in (b"northwind", b"southgate"):
            assert name not in sent
        for context in visitor.page.context.pages:
            assert "north" not in context.url + context.content()


def test_a_press_too_many_is_no_vote(browser: Any, server: Server, study: Study) -> None:
    one = visit(browser, server.link("甲"))
    one.wait_for(0)
    one.pressed[one.shown()] = 2
    for _ in range(4):
        one.page.keyboard.press("5", delay=1)
    one.page.get_by_text("已完成 0 / ").wait_for(state="hidden")
    one.page.wait_for_timeout(1000)
    one.settle()
    assert one.done() in (1, 2)
    # A second tab shows the same pair; what it votes on when the first has voted is not counted.
    tab = Visitor(one.page.context.new_page())
    tab.page.goto(server.address)
    tab.page.locator(".answer").first.wait_for()
    assert tab.shown() == one.shown()
    before = one.done()
    one.vote("1")
    tab.page.keyboard.press("5")
    tab.wait_for(before + 1)
    store = open_store(study)
    votes = reading.votes_of(store)
    store.close()
    assert len(votes) == before + 1
    assert votes[-1].choice == -2


def test_tags_comment_and_both_bad_go_with_the_vote(
    browser: Any, server: Server, study: Study
) -> None:
    one = visit(browser, server.link("甲"))
    one.wait_for(0)
    one.page.keyboard.press("n")
    one.page.get_by_text("☑ 两个都不好").wait_for()
    one.page.get_by_role("button", name="事实错误").click()
    box = one.page.get_by_label("备注")
    # Digits in a comment are no votes.
    box.fill("")
    box.press_sequentially("2 与 5 都错，N/S/U")
    one.page.locator(".st-key-choices button").nth(2).click()
    one.wait_for(1)
    one.page.keyboard.press("s")
    one.page.get_by_text("指令不清楚").click()
    one.page.wait_for_timeout(800)
    store = open_store(study)
    (vote,) = reading.votes_of(store)
    (comment,) = reading.comments_of(store)
    assert (vote.choice, vote.both_bad, vote.tags) == (0, True, ("factual",))
    assert comment["comment"] == "2 与 5 都错，N/S/U"
    assert owning.progress(store).people[-1].skipped == 1
    store.close()


def test_what_a_key_does_is_in_sight_however_long_the_answers(browser: Any, tmp_path: Path) -> None:
    rows = lines(2)
    for row in rows:
        row["text"] += "\n\n```python\ndef f():\n    return 1\n```\n\n`f` 返回什么？"
        row["answers"] = {name: f"{text}\n\n" * 60 for name, text in row["answers"].items()}
    rules = making.Rules(control_every=0, dwell=3600.0, overlap=2)
    path = write_lines(tmp_path / "answers.jsonl", rows)
    study = making.make_study(tmp_path / "study", making.from_lines(path, rules), "north", rules)
    server = Server(study.folder)
    try:
        one = visit(browser, server.link("甲"))
        one.wait_for(0)
        page = one.page
        assert page.locator(".asked pre").inner_text() == "def f():\n    return 1"
        assert page.locator(".asked > code").inner_text() == "f"
        assert "`" not in one.shown()[0]
        for key, found in (
            ("n", page.get_by_text("☑ 两个都不好")),
            ("1", page.get_by_text("太快了")),
            ("s", page.get_by_text("看得出回答的来源")),
        ):
            page.keyboard.press(key)
            found.wait_for()
            one.settle()
            box = found.bounding_box()
            assert 0 < box["y"] < box["y"] + box["height"] <= 900, key
        assert not {name for name in system_fonts(page) if name.endswith((" JP", " KR"))}
    finally:
        server.kill()


def system_fonts(page: Any) -> set[str]:
    """The fonts of its system with which a browser draws the instruction and the answers."""
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    found: set[str] = set()
    for part in (".asked", ".answer .text"):
        where = {"nodeId": root, "selector": part}
        node = session.send("DOM.querySelector", where)["nodeId"]
        used = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
        found |= {font["familyName"] for font in used if not font["isCustomFont"]}
    assert found
    return found


# Away twice, the second time before the server has heard of the first.
AWAY = """async () => {
  const see = (state) => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  };
  const began = performance.now();
  for (let i = 0; i < 2; i++) {
    see("hidden");
    await new Promise((done) => setTimeout(done, 700));
    see("visible");
  }
  return (performance.now() - began) / 1000;
}"""
# Whether the page hears keys yet: what is held down comes to nothing.
HEARS = """() => !document.body.dispatchEvent(new KeyboardEvent(
  "keydown", { key: "x", repeat: true, bubbles: true, cancelable: true }))"""
TYPES = """() => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true }))"""


def test_keys_scrolling_and_time_away_are_as_a_reader_means_them(
    browser: Any, server: Server, study: Study
) -> None:
    one = visit(browser, server.link("甲"), viewport={"width": 1280, "height": 480})
    page = one.page
    one.wait_for(0)
    page.wait_for_function(HEARS)
    away = page.evaluate(AWAY)
    page.evaluate("document.querySelector('.stMain').scrollTo(0, 300)")
    for part in (".st-key-asked", ".st-key-choices"):
        box = page.locator(part).bounding_box()
        assert 0 < box["y"] < box["y"] + box["height"] <= 480
    page.wait_for_timeout(300)
    one.settle()  # the server has heard of the time away
    assert page.evaluate("document.querySelector('.stMain').scrollTop") > 100
    # Held for two seconds, in which each pair could be voted on many times.
    for _ in range(40):
        page.keyboard.down("5")
        page.wait_for_timeout(50)
    page.keyboard.up("5")
    one.wait_for(1)
    page.wait_for_function("document.querySelector('.stMain').scrollTop === 0")
    for number, key in enumerate(("Enter", "Escape"), start=1):
        box = page.get_by_label("备注")
        box.click()
        box.press_sequentially("12")
        # A word of an input method ends with Enter; the comment goes on.
        page.evaluate(TYPES)
        page.wait_for_timeout(100)
        box.press_sequentially("3")
        page.keyboard.press(key)
        page.wait_for_function("document.activeElement.tagName !== 'INPUT'")
        one.settle()
        page.keyboard.press("3")
        one.wait_for(number + 1)
    with sqlite3.connect(study.folder / "study.db") as database:
        found = database.execute(
            "SELECT choice, comment, hidden, lost FROM vote ORDER BY created"
        ).fetchall()
    assert [row[:2] for row in found] == [(2, ""), (0, "123"), (0, "123")]
    assert found[0][2] == pytest.approx(away, abs=0.5)
    assert [row[3] for row in found] == [2, 0, 0]


PAYLOADS = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "![x](http://127.0.0.1:9/beacon.png)",
    "[x](javascript:window.hit=1)",
    '<a href="http://127.0.0.1:9/">x</a><svg onload=window.hit=1>',
    "<style>body{display:none}</style><iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    ":material/home: :red[x] $\\href{javascript:window.hit=1}{x}$",
    "`code` <b onmouseover=window.hit=1>bold</b> <!-- x",
)


def test_hostile_texts_are_inert(browser: Any, tmp_path: Path) -> None:
    rows = lines(len(PAYLOADS))
    for row, payload in zip(rows, PAYLOADS, strict=True):
        row["text"] = f"{row['id']} {payload}"
        row["points"] = [payload] * 3
        row["answers"] = {"x": f"one {payload}", "y": f"other {payload} {payload}"}
    rules = making.Rules(control_every=0, dwell=0.0, overlap=2)
    path = write_lines(tmp_path / "answers.jsonl", rows)
    study = making.make_study(tmp_path / "study", making.from_lines(path, rules), "x", rules)
    server = Server(study.folder)
    try:
        one = visit(browser, server.link("<img src=x onerror=window.hit=1>"))
        asked: list[str] = []
        one.page.on("request", lambda request: asked.append(request.url))
        for number in range(len(PAYLOADS)):
            one.wait_for(number)
            asked_text, left, _ = one.shown()
            assert any(payload.replace("`", "") in asked_text for payload in PAYLOADS)
            assert left.startswith(("one ", "other "))
            assert one.page.locator(".answer :is(a, img, script, svg, iframe, style)").count() == 0
            assert one.page.evaluate("window.hit") is None
            one.page.get_by_label("备注").fill(PAYLOADS[number])
            one.page.locator(".st-key-choices button").nth(number % 2 * 4).click()
        one.page.get_by_text("全部完成").wait_for()
        two = visit(browser, server.link("乙"))
        two.wait_for(0)
        for number in range(len(PAYLOADS)):
            two.wait_for(number)
            two.page.keyboard.press("4")
        owner = visit(browser, server.link("主管", "--role", "owner"))
        owner.page.on("request", lambda request: asked.append(request.url))
        for path_of in ("disputes", "progress", "results"):
            owner.page.goto(f"{server.address}/{path_of}")
            owner.page.locator(".stMainBlockContainer").wait_for()
            owner.page.wait_for_timeout(1500)
            assert owner.page.evaluate("window.hit") is None
        assert not [url for url in asked if ":9/" in url]
    finally:
        server.kill()


def test_a_used_link_and_a_stranger_see_nothing(browser: Any, server: Server) -> None:
    link = server.link("甲")
    visit(browser, link).wait_for(0)
    page = browser.new_context(locale="en-US").new_page()
    page.goto(link)
    page.get_by_role("button").click()
    page.get_by_text("used before").wait_for()
    page.goto(server.address)
    page.get_by_text("Open the link of your invitation").wait_for()
    assert page.locator(".answer").count() == 0


def test_an_owner_pauses_closes_and_unblinds(browser: Any, server: Server, study: Study) -> None:
    one = visit(browser, server.link("甲"))
    one.wait_for(0)
    for key in "1245":
        one.vote(key)
    chief = visit(browser, server.link("主管", "--role", "owner"))
    owner = chief.page

    def reads(state: str) -> None:
        owner.get_by_text(state).first.wait_for()
        chief.settle()

    reads("进行中")
    owner.get_by_role("button", name="暂停").click()
    reads("已暂停")
    one.page.keyboard.press("1")
    one.page.get_by_text("研究已暂停").first.wait_for()
    for word, state in (("结束研究", "已结束"), ("揭盲", "已揭盲")):
        owner.get_by_role("button", name=word).click()
        owner.get_by_role("button", name="确认").click()
        reads(state)
    owner.goto(f"{server.address}/results")
    owner.get_by_text("southgate").first.wait_for()
    with sqlite3.connect(study.folder / "study.db") as database:
        kinds = [kind for (kind,) in database.execute("SELECT kind FROM event")]
    assert kinds[-3:] == ["paused", "closed", "unblinded"]
    assert json.dumps(kinds).count("came in") == 2
