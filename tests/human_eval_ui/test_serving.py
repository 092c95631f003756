"""The door of the server: who is let in, from where, and what the pages are told."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from qwen_eval.errors import RefusedError, UserError
from qwen_eval.human_eval_ui import serving
from qwen_eval.human_eval_ui.store import access
from qwen_eval.human_eval_ui.store.store import Store, StoreError
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


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_pages_behind_a_proxy_know_their_address(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Streamlit's own check of a visitor's Host."""
    from streamlit import config
    from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

    settings = serving.settings(host, 8501, "https://study.example.org/eval")
    assert settings["browser.serverAddress"] == "study.example.org"
    assert serving.settings(host, 8501)["browser.serverAddress"] == host
    for name in settings:
        config.get_option(name)  # raises where there is none of that name
    monkeypatch.setattr(config, "get_option", settings.get)
    for name in ("study.example.org", "localhost:8501", "[::1]:8501", "127.0.0.1"):
        assert is_host_allowed(name)
    assert is_host_allowed("hostile.example.com") is (host == "0.0.0.0")


@pytest.mark.parametrize(
    "url", ["study.example.org", "ftp://x", "https://", "http://x:y", "http://["]
)
def test_a_url_is_an_address_of_pages(url: str) -> None:
    with pytest.raises(UserError, match=f"--url {re.escape(url)}: give an address"):
        serving.check_address("127.0.0.1", 0, False, url)


def test_a_page_without_sign_in_is_behind_no_proxy() -> None:
    with pytest.raises(RefusedError, match=r"--url https://study\.example\.org: others"):
        serving.check_address("127.0.0.1", 0, True, "https://study.example.org")
    serving.check_address("127.0.0.1", 0, True, "http://localhost:9000")
    serving.check_address("127.0.0.1", 0, False, "https://study.example.org")


def test_the_one_person_of_a_page_is_not_let_in_again(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    token = access.owner_token(store)
    assert serving._alone(store) == serving._alone(store) == access.named(store, "owner")
    assert access.redeem(store, token or "")
    access.revoke(store, "owner")
    with pytest.raises(UserError, match=r"--solo: owner was sent away; .* --role owner"):
        serving._alone(store)


def door(store: Store, url: str | None = None, base: str = "https://study") -> TestClient:
    """A browser before the door."""

    async def join(request: Request) -> Response:
        return await serving._join(store, request, url)

    return TestClient(
        Starlette(routes=[Route(serving.JOIN, join, methods=["GET", "POST"])]),
        base_url=base,
        follow_redirects=False,
        headers={"accept-language": "en-GB"},
    )


def test_an_invitation_is_exchanged_by_a_press_alone(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    token = access.invite(store, "小明")
    client = door(store, "https://study")
    # Programs that look at links only GET them.
    for _ in range(3):
        shown = client.get("/join", params={"token": token})
        assert (shown.status_code, "Begin" in shown.text) == (200, True)
        assert shown.headers["referrer-policy"] == "strict-origin"
    pressed = client.post("/join", data={"token": token})
    assert (pressed.status_code, pressed.headers["location"]) == (303, "./")
    cookie = pressed.headers["set-cookie"]
    for part in ("HttpOnly", "Secure", "SameSite=lax"):
        assert part in cookie
    session = client.cookies[serving.cookie_name(store.study)]
    person = access.who(store, session)
    assert person is not None
    assert person.name == "小明"
    again = client.post("/join", data={"token": token})
    assert (again.status_code, "used before" in again.text) == (403, True)


def test_whoever_is_signed_in_may_go_on_or_be_replaced(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    client = door(store)
    client.post("/join", data={"token": access.invite(store, "<小明>")})
    cookie = serving.cookie_name(store.study)
    old = client.cookies[cookie]
    # A link that was kept after its use still leads in.
    for token in ("used", access.invite(store, "乙")):
        shown = client.get("/join", params={"token": token}).text
        assert "signed in as &lt;小明&gt; already" in shown
        assert '<a href="./">Go on as you are</a>' in shown
        assert "Sign in by this invitation instead" in shown
    refused = client.post("/join", data={"token": "used"}).text
    assert "Go on as you are" in refused
    assert access.who(store, old)
    client.post("/join", data={"token": token})
    found = access.who(store, client.cookies[cookie])
    assert found is not None
    assert (found.name, access.who(store, old)) == ("乙", None)


def test_studies_of_one_host_do_not_sign_each_other_out(tmp_path: Path) -> None:
    one, _, _ = made_store(tmp_path / "one", people=0)
    two, _, _ = made_store(tmp_path / "two", people=0, items=11)
    client = door(one)
    client.post("/join", data={"token": access.invite(one, "甲")})
    other = door(two)
    other.cookies = client.cookies
    assert "already" not in other.get("/join").text
    other.post("/join", data={"token": access.invite(two, "乙")})
    for store, name in ((one, "甲"), (two, "乙")):
        found = access.who(store, other.cookies[serving.cookie_name(store.study)])
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize(
    ("origin", "url", "status"),
    [
        (None, None, 303),
        ("https://study", None, 303),
        ("https://hostile.example", None, 403),
        ("https://study.hostile.example", None, 403),
        ("https://study:81", None, 403),
        ("null", None, 403),
        ("https://[", None, 403),
        # A proxy may speak to the server by a name of its own.
        ("https://outside.example", "https://outside.example/", 303),
        ("https://hostile.example", "https://outside.example/", 403),
    ],
)
def test_a_form_of_another_site_signs_nobody_in(
    tmp_path: Path, origin: str | None, url: str | None, status: int
) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    client = door(store, url)
    headers = {"origin": origin} if origin else {}
    answer = client.post("/join", data={"token": access.invite(store, "x")}, headers=headers)
    assert answer.status_code == status
    assert ("set-cookie" in answer.headers) is (status == 303)


def test_a_database_that_fails_is_told_without_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    token = access.invite(store, "x")

    def full(*_: object) -> str:
        raise StoreError("/srv/secret/study.db: disk is full; nothing was changed")

    monkeypatch.setattr(access, "redeem", full)
    answer = door(store).post("/join", data={"token": token})
    assert (answer.status_code, "cannot be reached now" in answer.text) == (503, True)
    assert "secret" not in answer.text
    assert "/srv/secret/study.db" in caplog.text


def test_a_hostile_token_is_text(tmp_path: Path) -> None:
    page = serving._door('"><script>alert(1)</script>', "zh")
    assert "<script>" not in page
    assert "&quot;&gt;&lt;script&gt;" in page
