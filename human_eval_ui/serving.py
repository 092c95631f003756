"""The server of one study: Streamlit's, and beside it the door where an invitation becomes a
session.

The session is a cookie that scripts cannot read. A page without sign-in is served to the same
machine only. Knows nothing of what the pages show.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_eval.errors import RefusedError, UserError

from .store import access
from .store.access import Person
from .store.store import Store
from .views.words import Language, say

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

COOKIE = "qwen-eval-session"
JOIN = "/join"
ALONE = "owner"  # the name of whoever uses a page without sign-in
_SCRIPT = Path(__file__).parent / "app.py"
_served: Served | None = None


@dataclass(frozen=True)
class Served:
    """What the pages of this process show. `alone`: who it is where nobody signs in."""

    store: Store
    alone: Person | None = None


def current() -> Served | None:
    """What this process serves; None where it was not started by `serve`."""
    return _served


def serve(store: Store, host: str, port: int, *, solo: bool = False, secure: bool = False) -> None:
    """Serve the study until stopped. `solo`: without sign-in, as one person who is owner and
    annotator; `secure`: visitors come by https, through a proxy.

    Raises what check_address does.
    """
    global _served  # noqa: PLW0603 - Streamlit runs our script anew for every visit
    check_address(host, port, solo)
    import streamlit as st
    from starlette.routing import Route

    _served = Served(store, _alone(store) if solo else None)

    async def join(request: Request) -> Response:
        return await _join(store, request, secure)

    app = st.App(_SCRIPT, routes=[Route(JOIN, join, methods=["GET", "POST"])])
    app.run(config=settings(host, port))


def settings(host: str, port: int) -> dict[str, Any]:
    """Streamlit's settings for the pages."""
    return {
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.enableStaticServing": False,
        # Whoever came by another name, such as that of a hostile page, is not let in.
        "server.allowedHosts": ["localhost", "127.0.0.1", "[::1]"] if _is_loopback(host) else [],
        "browser.gatherUsageStats": False,
        # A whole collection after every press costs three times what the press does.
        "runner.postScriptGC": False,
        "client.toolbarMode": "minimal",
        "theme.primaryColor": "#2f5bd8",
        "client.showErrorDetails": "none",
    }


def check_address(host: str, port: int, solo: bool) -> None:
    """Raises RefusedError where a page without sign-in would be open to others, UserError where
    nothing can be served: a host that is none of this machine's, a port that is taken."""
    if solo and not _is_loopback(host):
        raise RefusedError(
            f"--host {host}: others can reach it, and with --solo nobody signs in; leave --solo "
            "out and invite them, or serve 127.0.0.1"
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: {error}") from error


def has_login() -> bool:
    """Whether a login (OpenID Connect) is configured in Streamlit's secrets."""
    import streamlit as st

    try:
        return "auth" in st.secrets
    except (FileNotFoundError, KeyError):
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _alone(store: Store) -> Person:
    """The one person of a page without sign-in, invited where they are not yet."""
    access.invite(store, ALONE, "owner")
    found = access.named(store, ALONE)
    assert found is not None
    return found


async def _join(store: Store, request: Request, secure: bool) -> Response:
    """GET shows a button: programs that look at links must not use the invitation up. POST
    exchanges it."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, RedirectResponse

    language = _language_of(request.headers)
    guarded = {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    if request.method == "GET":
        token = request.query_params.get("token", "")
        return HTMLResponse(_door(token, language), headers=guarded)
    form = await request.form()
    try:
        session = await run_in_threadpool(access.redeem, store, str(form.get("token", "")))
    except UserError as error:
        return HTMLResponse(_door(None, language, str(error)), 403, headers=guarded)
    response = RedirectResponse("./", 303, headers=guarded)
    age = access.DAYS * 86400
    response.set_cookie(COOKIE, session, age, httponly=True, samesite="lax", secure=secure)
    return response


def _language_of(headers: Mapping[str, str]) -> Language:
    return "en" if headers.get("accept-language", "zh").lower().startswith("en") else "zh"


def _door(token: str | None, language: Language, trouble: str = "") -> str:
    title, text, button = (
        escape(say(key, language)) for key in ("join_title", "join_text", "join_button")
    )
    form = (
        f'<p>{text}</p><form method="post" action="join"><input type="hidden" name="token" '
        f'value="{escape(token)}"><button>{button}</button></form>'
        if token is not None
        else f'<p role="alert">{escape(trouble)}</p><p>{escape(say("sign_in", language))}</p>'
    )
    style = (
        "body{font:1.05rem/1.7 system-ui,sans-serif;max-width:34rem;margin:18vh auto;"
        "padding:0 1rem}"
        "button{font:inherit;padding:.5rem 2.2rem;border:0;border-radius:.5rem;background:#2f5bd8;"
        "color:#fff;cursor:pointer}"
    )
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style>'
        f"<h1>{title}</h1>{form}</html>"
    )
