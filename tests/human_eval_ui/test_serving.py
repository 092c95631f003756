"""The door of the server: who is let in, from where, and what the pages are told."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from qwen_eval.errors import RefusedError, UserError
from qwen_eval.human_eval_ui import serving
from qwen_eval.human_eval_ui.store import access
from tests.human_eval_ui.made_study import made_store


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_a_page_without_sign_in_stays_on_this_machine(host: str) -> None:
    with pytest.raises(RefusedError, match=f"--host {re.escape(host)}: others can reach it"):
        serving.check_address(host, 0, solo=True)
    assert serving.settings(host, 80)["server.allowedHosts"] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9"])
def test_this_machine_is_known(host: str) -> None:
    serving.check_address(host, 0, solo=True)
    assert "localhost" in serving.settings(host, 80)["server.allowedHosts"]


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--host 127.0.0.1 --port {port}: .*in use"):
            serving.check_address("127.0.0.1", port, solo=False)


def test_an_invitation_is_exchanged_by_a_press_alone(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Route
    from starlette.testclient import TestClient

    store, _, _ = made_store(tmp_path, people=0)
    token = access.invite(store, "小明")

    async def join(request):
        return await serving._join(store, request, secure=True)

    client = TestClient(
        Starlette(routes=[Route(serving.JOIN, join, methods=["GET", "POST"])]),
        base_url="https://study",
        follow_redirects=False,
    )
    # Programs that look at links only GET them.
    for _ in range(3):
        shown = client.get("/join", params={"token": token}, headers={"accept-language": "en-GB"})
        assert (shown.status_code, "Begin" in shown.text) == (200, True)
        assert shown.headers["referrer-policy"] == "no-referrer"
    pressed = client.post("/join", data={"token": token})
    assert (pressed.status_code, pressed.headers["location"]) == (303, "./")
    cookie = pressed.headers["set-cookie"]
    for part in ("HttpOnly", "Secure", "SameSite=lax"):
        assert part in cookie
    session = client.cookies[serving.COOKIE]
    person = access.who(store, session)
    assert person is not None
    assert person.name == "小明"
    again = client.post("/join", data={"token": token})
    assert (again.status_code, "used before" in again.text) == (403, True)


def test_a_hostile_token_is_text(tmp_path: Path) -> None:
    page = serving._door('"><script>alert(1)</script>', "zh")
    assert "<script>" not in page
    assert "&quot;&gt;&lt;script&gt;" in page
