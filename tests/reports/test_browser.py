"""The page in a real browser: silent, still, inert, and to be used without a mouse."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.reports.render import SampleSet, page, samples_page
from qwen_eval.reports.samples import pack
from qwen_eval.reports.view import build
from tests.harness.toys import record
from tests.reports.hostile import HOSTILE
from tests.reports.runs import a_run, answers
from tests.reports.test_ci import EVERY
from tests.reports.test_report import hostile_runs, of_every_kind, two, written

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Of every pair of a text's colour and the one behind it: the contrast (WCAG 2.2).
PAIRS = """() => {
  const paper = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parts = (colour) => {
    paper.clearRect(0, 0, 1, 1);
    paper.fillStyle = colour;
    paper.fillRect(0, 0, 1, 1);
    return [...paper.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = (element, name) => getComputedStyle(element)[name];
  const found = {}, texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.getClientRects().length) continue;
    let behind = element;
    while (behind && !parts(style(behind, "backgroundColor"))[3]) behind = behind.parentElement;
    const colours = [style(element, element.closest("svg") ? "fill" : "color"),
                     style(behind, "backgroundColor")];
    const [low, high] = colours.map(light).sort((a, b) => a - b);
    found[`${colours.join(" on ")}`] = (high + 0.05) / (low + 0.05);
  }
  return found;
}"""
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


@contextmanager
def opened(browser: Any, path: Path, html: str, **context: Any) -> Iterator[Any]:
    """The page from disk. At the end: no message on its console, no request but for itself."""
    path.write_text(html, encoding="utf-8")
    view = browser.new_page(**context)
    said: list[str] = []
    asked: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("dialog", lambda dialog: said.append(dialog.message))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(path.as_uri())
    view.wait_for_selector("#browser:not([hidden])")
    yield view
    assert said == []
    assert asked == [path.as_uri()]
    view.close()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_do_nothing(browser: Any, tmp_path: Path, text: str) -> None:
    with opened(browser, tmp_path / "r.html", written(hostile_runs(text))) as view:
        view.locator("#rows button.more").first.click()
        view.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
        assert view.evaluate("window.pwned") is None
        assert view.locator("img, iframe, object, embed, base").count() == 0


def test_samples_are_searched_filtered_and_opened_with_keys(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "r.html", written(two())) as view:
        assert view.inner_text("#count") == "6 of 6 samples"
        view.keyboard.press("/")
        view.keyboard.type("it is 4.")
        view.wait_for_function("() => document.querySelectorAll('tr.row').length === 1")
        assert view.inner_text("#count") == "1 of 6 samples"
        view.locator("#search").fill("")
        view.wait_for_function("() => document.querySelectorAll('tr.row').length === 6")
        view.select_option("#changed", "-1")
        assert view.locator("tr.row").count() == 1
        view.select_option("#changed", "")
        view.select_option("#outcome", label="no answer")
        assert view.locator("tr.row").count() == 1
        view.focus("#outcome")
        view.keyboard.press("Tab")
        view.keyboard.press("Tab")
        view.keyboard.press("Enter")
        assert view.get_attribute("#rows button.more", "aria-expanded") == "true"
        view.keyboard.press("Tab")
        view.keyboard.press("Enter")
        assert "Few shots." in view.inner_text("#body")


def test_a_score_that_is_no_share_is_a_figure(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "r.html", written(of_every_kind())) as view:
        for task, said in (("long", ["scored -2", "scored -3"]), ("human", ["partly 0.5"] * 2)):
            view.select_option("#task", label=task)
            cells = view.locator("tr.row").first.locator(".key-cell").all_inner_texts()
            assert [cell.strip() for cell in cells] == said


def test_lengths_are_in_the_order_of_numbers(browser: Any, tmp_path: Path) -> None:
    runs = [a_run(answers("111", group=lambda i: str(4096 * 4**i)))]
    with opened(browser, tmp_path / "r.html", written(runs)) as view:
        assert view.locator("#group option").all_inner_texts() == ["all", "4096", "16384", "65536"]


def test_what_was_not_judged_has_not_changed(browser: Any, tmp_path: Path) -> None:
    runs = [a_run(answers("1!01"), "a"), a_run(answers("11!0"), "b")]
    assert sum(len(one.flips) for one in build(runs).pairs[0].tasks) == 1
    with opened(browser, tmp_path / "r.html", written(runs)) as view:
        view.select_option("#changed", "any")
        assert view.inner_text("#count") == "1 of 4 samples"


def test_the_arrows_scroll_a_long_text_that_has_the_focus(browser: Any, tmp_path: Path) -> None:
    runs = [a_run(answers("1" * 60, text="word " * 900))]
    with opened(browser, tmp_path / "r.html", written(runs)) as view:
        view.locator("#rows button.more").first.click()
        view.locator("#rows pre").nth(1).evaluate("one => { one.tabIndex = 0; one.focus(); }")
        view.keyboard.press("ArrowRight")
        assert view.inner_text("#place") == "1 / 2"
        assert view.locator("tr.row td").nth(2).inner_text().startswith("word word")


def test_many_samples_are_paged(browser: Any, tmp_path: Path) -> None:
    runs = [a_run(answers("10" * 60, group=lambda i: f"g{i % 3}"))]
    report = build(runs)
    html = samples_page(report, pack(runs, ["m"])[1], "r.html")
    with opened(browser, tmp_path / "r-samples.html", html) as view:
        assert view.locator("tr.row").count() == 50
        view.keyboard.press("ArrowRight")
        view.keyboard.press("ArrowRight")
        assert view.locator("tr.row").count() == 20
        assert view.inner_text("#place") == "3 / 3"
        assert view.is_disabled("#next")
        view.select_option("#group", "g1")
        assert view.inner_text("#count") == "40 of 120 samples"
        assert view.is_hidden("#changed"), "there is nothing to change from"
        view.select_option("#group", "")
        view.focus("#next")
        view.keyboard.press("Control+ArrowRight")
        assert view.inner_text("#place") == "1 / 3"
        view.keyboard.press("ArrowRight")
        view.select_option("#outcome", label="right")
        assert view.inner_text("#place") == "1 / 2"


def test_it_is_readable_in_the_dark_and_on_a_narrow_screen(browser: Any, tmp_path: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with opened(browser, tmp_path / "r.html", written(two()), color_scheme=scheme,
                    viewport={"width": 390, "height": 800}) as view:  # fmt: skip
            style = "getComputedStyle(document.body)"
            seen[scheme] = view.evaluate(f"[{style}.color, {style}.backgroundColor]")
            assert view.evaluate("document.documentElement.scrollWidth") <= 390
    assert seen["light"][1] != seen["dark"][1]
    for ink, paper in seen.values():
        assert _contrast(ink, paper) >= 7


@pytest.mark.parametrize("count", [2, 30])
def test_long_names_and_many_runs_stay_on_the_page(
    browser: Any, tmp_path: Path, count: int
) -> None:
    name = "m" * 300
    runs = [
        a_run(answers("10" * 4, group=lambda i: f"{name}{i % 3}", answer=name), f"{name}{k}")
        for k in range(count)
    ]
    for width in (1200, 390):
        with opened(browser, tmp_path / "r.html", written(runs),
                    viewport={"width": width, "height": 800}) as view:  # fmt: skip
            assert view.evaluate("document.documentElement.scrollWidth") <= width


def test_every_text_stands_out_from_what_is_behind_it(browser: Any, tmp_path: Path) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1."""
    html = written(of_every_kind(), gate=EVERY)
    for scheme in ("light", "dark"):
        with opened(browser, tmp_path / "r.html", html, color_scheme=scheme) as view:
            view.locator("#rows button.more").first.click()
            view.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
            seen = view.evaluate(PAIRS)
            assert len(seen) > 12
            assert {pair: ratio for pair, ratio in seen.items() if ratio < 4.5} == {}


def test_every_step_of_the_heat_map_can_be_read(browser: Any, tmp_path: Path) -> None:
    cells = "".join(f'<b class="{kind}{step}">1</b>' for kind in "hd" for step in range(11))
    html = re.sub(r"(</style>)", rf"\1</head><body>{cells}", written(two()), count=1)
    for scheme in ("light", "dark"):
        with opened(browser, tmp_path / "r.html", html, color_scheme=scheme) as view:
            assert min(view.evaluate(PAIRS).values()) >= 4.5


def test_nothing_hides_behind_the_sections_bar(browser: Any, tmp_path: Path) -> None:
    for width in (1200, 390):
        size = {"width": width, "height": 700}
        with opened(browser, tmp_path / "r.html", written(two()), viewport=size,
                    reduced_motion="reduce") as view:  # fmt: skip
            bar = "document.querySelector('nav').getBoundingClientRect().bottom"
            for anchor in ("scores", "differences", "provenance"):
                view.locator(f'nav a[href="#{anchor}"]').evaluate("link => link.click()")
                top = view.evaluate(
                    f"document.querySelector('#{anchor} h2').getBoundingClientRect().top"
                )
                assert view.evaluate(bar) <= top < 700
            view.locator("#flips summary").last.focus()
            view.evaluate("scrollTo(0, 1e6)")
            view.keyboard.press("Shift+Tab")
            assert view.evaluate("document.activeElement.tagName") == "SUMMARY"
            top = view.evaluate("document.activeElement.getBoundingClientRect().top")
            assert view.evaluate(bar) <= top


def test_print_shows_what_was_folded(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "r.html", written(two())) as view:
        view.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert view.locator("details:not([open])").count() == 0
        view.evaluate("dispatchEvent(new Event('afterprint'))")
        assert view.locator("details[open]").count() == 0
        view.evaluate("dispatchEvent(new Event('beforeprint'))")
        view.emulate_media(media="print")
        assert not view.is_visible("nav")
        assert view.is_visible("#flips pre")


def test_paper_is_light_and_cuts_no_column(browser: Any, tmp_path: Path) -> None:
    html = written(of_every_kind(), gate=EVERY)
    with opened(browser, tmp_path / "r.html", html, color_scheme="dark",
                viewport={"width": 720, "height": 1000}) as view:  # fmt: skip
        view.emulate_media(media="print")
        assert min(view.evaluate(PAIRS).values()) >= 4.5
        assert (
            view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        # Browsers shrink what is too wide for the paper, unless something scrolls or hides it.
        ways = "all => all.map(one => getComputedStyle(one).overflowX)"
        assert set(view.locator(".scroll, .maps").evaluate_all(ways)) == {"visible"}


def test_without_samples_there_is_still_a_page(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text(page(build([a_run([record(0)])]), SampleSet()), encoding="utf-8")
    view = browser.new_page(java_script_enabled=False)
    view.goto(path.as_uri())
    assert view.is_visible("#scores")
    view.close()


def _contrast(*colours: str) -> float:
    """WCAG 2.2's ratio of two `rgb(r, g, b)`."""
    light = []
    for colour in colours:
        parts = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    low, high = sorted(light)
    return (high + 0.05) / (low + 0.05)
