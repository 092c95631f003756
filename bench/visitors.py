"""Annotators without a browser: they speak Streamlit's own protocol to a server of the pages.

A visitor exchanges an invitation for a session, opens the websocket that a browser would, keeps
what the server draws, and presses a choice as a browser sends it: the button's trigger, with the
fragment that drew it. Lost connections are opened again, and it goes on with what is shown.

Knows the page by its keys alone: buttons `ASSIGNMENT:CHOICE`, and answers as `class="answer"`. Not
played: the widgets beside the choices, and the browser's cache of messages, so every byte is sent.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass
from typing import Any

import httpx
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Origin, Subprotocol

from qwen_eval.human_eval_ui.serving import JOIN

RETRY = 0.25  # seconds before a lost connection is opened again
PATIENCE = 120.0  # seconds; a page that shows no pair for so long never will
CHOICES = 5
_CHOICE = re.compile(r"-([0-9a-f]{32}):(-?[0-2])$")


@dataclass(frozen=True)
class Shown:
    """A pair on the page. `buttons`: the widgets of its choices; left and right as HTML."""

    assignment: str
    left: str
    right: str
    buttons: dict[int, str]
    fragment: str


@dataclass
class Press:
    """A choice that was pressed on a pair. `passed`: another pair came after it. `confirmed`: it
    came on the same connection, `seconds` later."""

    pair: Shown
    choice: int
    passed: bool = False
    confirmed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class _Node:
    """An element and the run of the script that drew it."""

    run: str
    fragment: str
    element: Any


class Page:
    """What the server drew last, by its place."""

    def __init__(self) -> None:
        self.session = ""
        self.script = ""
        self._run: Any = None
        self._nodes: dict[tuple[int, ...], _Node] = {}

    def take(self, message: Any) -> bool:
        """Draw one message. Says whether a run of the script is through, and the page complete."""
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.session = message.new_session.initialize.session_id
            self.script = message.new_session.page_script_hash
            self._run = message.metadata.run
        elif kind == "navigation":
            self.script = message.navigation.page_script_hash
        elif kind == "delta":
            self._draw(tuple(message.metadata.delta_path), message.delta)
        elif kind == "script_finished":
            return self._finish(message.script_finished)
        return False

    def shown(self) -> Shown | None:
        """The pair on the page, where a whole one is there."""
        answers: list[str] = []
        buttons: dict[str, dict[int, str]] = {}
        fragment = ""
        for _, node in sorted(self._nodes.items()):
            kind = node.element.WhichOneof("type")
            if kind == "html" and 'class="answer"' in node.element.html.body:
                answers.append(node.element.html.body)
            elif kind == "button" and (found := _CHOICE.search(node.element.button.id)):
                buttons.setdefault(found[1], {})[int(found[2])] = node.element.button.id
                fragment = node.fragment
        if len(answers) != 2 or [len(choices) for choices in buttons.values()] != [CHOICES]:
            return None
        assignment, choices = buttons.popitem()
        left, right = answers
        return Shown(assignment, left, right, choices, fragment)

    def _draw(self, place: tuple[int, ...], delta: Any) -> None:
        if delta.WhichOneof("type") == "new_element":
            run = self._run.script_run_id
            self._nodes[place] = _Node(run, delta.fragment_id, delta.new_element)
        else:
            self._nodes.pop(place, None)

    def _finish(self, status: int) -> bool:
        """What a whole run, or a fragment's, did not draw anew goes from the page."""
        fragments = set(self._run.fragment_ids)
        whole = status == ForwardMsg.FINISHED_SUCCESSFULLY
        if not whole and status != ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
            return False
        self._nodes = {
            place: node
            for place, node in self._nodes.items()
            if node.run == self._run.script_run_id or not (whole or node.fragment in fragments)
        }
        return True


class Visitor:
    """One annotator with an invitation to the pages at `url`, who gives `votes` votes.

    `pace`: seconds between a pair and its vote, on average. `twice`: share of the choices that are
    pressed twice at once. Raises TimeoutError where no pair comes for PATIENCE seconds, and what
    the connection says where there is no server for so long.
    """

    def __init__(
        self, url: str, token: str, votes: int, *, pace: float = 0.0, twice: float = 0.0, seed: int
    ) -> None:
        self.presses: list[Press] = []
        self._url, self._token = url, token
        self._votes, self._pace, self._twice = votes, pace, twice
        self._random = random.Random(seed)
        self._page = Page()
        self._cookie = ""
        self._served = time.monotonic()  # when a pair was last there

    @property
    def given(self) -> int:
        """Votes after which the page went on."""
        return sum(press.passed for press in self.presses)

    async def join(self) -> None:
        """Exchange the invitation for a session."""
        async with httpx.AsyncClient(base_url=self._url, timeout=PATIENCE) as client:
            answer = await client.post(JOIN, data={"token": self._token})
        self._cookie = "; ".join(f"{name}={value}" for name, value in answer.cookies.items())

    async def visit(self) -> None:
        """Vote until all votes are given."""
        while self.given < self._votes:
            try:
                async with self._connected() as socket:
                    await self._compare(socket)
            except (ConnectionError, WebSocketException):
                if time.monotonic() > self._served + self._pace + PATIENCE:
                    raise
                await asyncio.sleep(RETRY)

    def _connected(self) -> connect:
        # A browser's second protocol is its token against forgery, the third its former session.
        protocols = ["streamlit", "none", *([self._page.session] if self._page.session else [])]
        return connect(
            self._url.replace("http", "ws", 1) + "/_stcore/stream",
            origin=Origin(self._url),
            subprotocols=[Subprotocol(name) for name in protocols],
            additional_headers={"Cookie": self._cookie, "Accept-Language": "zh-CN"},
            open_timeout=PATIENCE,
            max_size=None,
        )

    async def _compare(self, socket: ClientConnection) -> None:
        self._page = Page()
        begin = BackMsg()
        begin.rerun_script.context_info.locale = "zh-CN"
        await socket.send(begin.SerializeToString())
        pair = await self._pair(socket, "")
        if self.presses and self.presses[-1].pair.assignment != pair.assignment:
            self.presses[-1].passed = True
        while self.given < self._votes:
            await asyncio.sleep(self._pace * self._random.uniform(0.5, 1.5))
            pair = await self._vote(socket, pair)

    async def _vote(self, socket: ClientConnection, pair: Shown) -> Shown:
        press = Press(pair, self._random.choice(sorted(pair.buttons)))
        self.presses.append(press)
        message = self._pressed(pair, press.choice)
        began = time.perf_counter()
        await socket.send(message)
        if self._random.random() < self._twice:
            await socket.send(message)
        following = await self._pair(socket, pair.assignment)
        press.seconds = time.perf_counter() - began
        press.passed = press.confirmed = True
        return following

    def _pressed(self, pair: Shown, choice: int) -> bytes:
        message = BackMsg()
        message.rerun_script.page_script_hash = self._page.script
        message.rerun_script.fragment_id = pair.fragment
        message.rerun_script.context_info.locale = "zh-CN"
        message.rerun_script.widget_states.widgets.add(id=pair.buttons[choice], trigger_value=True)
        found: bytes = message.SerializeToString()
        return found

    async def _pair(self, socket: ClientConnection, old: str) -> Shown:
        """The next whole pair that is not the old one."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = ForwardMsg()
                message.ParseFromString(await socket.recv())
                if self._page.take(message):
                    pair = self._page.shown()
                    if pair is not None and pair.assignment != old:
                        self._served = time.monotonic()
                        return pair
