"""A person at the pages of a study, in a browser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

CHOICES = {"1": -2, "2": -1, "3": 0, "4": 1, "5": 2}
DWELL = 0.2  # seconds that a pair has to be shown before a vote on it counts
DONE = re.compile(r"(\d+) / (\d+)")


@dataclass
class Visitor:
    """One person's page, and what they pressed: (instruction, left text, right text) → choice.
    `seen`: all bytes that came over the network."""

    page: Any
    pressed: dict[tuple[str, str, str], int] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)

    def shown(self) -> tuple[str, str, str]:
        """The instruction and both answers as they stand on the page."""
        asked = self.page.locator(".asked").first.inner_text()
        left, right = self.page.locator(".answer .text").all_inner_texts()
        return asked.strip(), left.strip(), right.strip()

    def done(self) -> int:
        """How many pairs are voted on, as the page says."""
        found = DONE.search(self.page.locator(".stProgress").inner_text())
        assert found
        return int(found[1])

    def wait_for(self, done: int) -> None:
        """Until the page says so many, and all of it was there for long enough to be voted on."""
        self.page.get_by_text(f"已完成 {done} / ").wait_for()
        self.settle()
        self.page.wait_for_timeout(1000 * DWELL)

    def settle(self) -> None:
        """Until the server has said all it has to say, and all of it is drawn: no key is heard by
        a button that is still a grey box."""
        self.page.locator(".stApp[data-test-script-state=notRunning]").wait_for()
        self.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")

    def vote(self, key: str, *, mouse: bool = False) -> None:
        """By key or by mouse."""
        before = self.done()
        self.pressed[self.shown()] = CHOICES[key]
        if mouse:
            self.page.locator(".st-key-choices button").nth(int(key) - 1).click()
        else:
            self.page.keyboard.press(key)
        self.wait_for(before + 1)


def visit(browser: Any, link: str, **context: Any) -> Visitor:
    """Come in by an invitation."""
    options: dict[str, Any] = {"locale": "zh-CN", "viewport": {"width": 1280, "height": 900}}
    page = browser.new_context(**(options | context)).new_page()
    page.set_default_timeout(120_000)  # a busy machine takes long to begin
    visitor = Visitor(page)
    page.on("websocket", lambda ws: ws.on("framereceived", lambda data: _keep(visitor, data)))
    page.goto(link)
    page.get_by_role("button").click()
    page.locator(".stApp").wait_for()
    return visitor


def _keep(visitor: Visitor, data: Any) -> None:
    visitor.seen.append(data if isinstance(data, bytes) else str(data).encode())
