"""The server of one study: Streamlit's, and beside it the door where an invitation becomes a
session.

The session is a cookie that scripts cannot read. A page without sign-in is served to the same
machine only. Says who visits, and knows nothing of what the pages show them.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qwen_eval.errors import RefusedError, UserError

from .store import access
from .store.access import OWNER, Person, Role
from .store.store import Store, StoreError
from .study.spec import Study
from .views.words import Language, say, trouble

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

JOIN = "/join"
FONTS = (
    "Source Sans",
    *("PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC"),
    "sans-serif",
)
LOCAL = ("localhost", "127.0.0.1", "::1")
_LOG = logging.getLogger(__name__)
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


def cookie_name(study: Study) -> str:
    """Where a browser keeps its session. Cookies belong to a host whatever the port, and a host may
    serve several studies."""
    return f"qwen-eval-session-{study.spec.digest[:8]}"


def visitor(served: Served) -> Person | None:
    """Whom the page is for that runs now, as the database says at this moment; None for nobody that
    may come in. Raises StoreError."""
    import streamlit as st

    if served.alone is not None:
        return access.named(served.store, served.alone.name)
    email = None
    # Some providers say it as a word; "false" is one as well.
    verified = st.user.get("email_verified")
    if st.user.get("is_logged_in") and (verified is True or verified == "true"):
        email = str(st.user.get("email") or "") or None
    session = st.context.cookies.get(cookie_name(served.store.study))
    return access.who(served.store, session, email)


def still(person: Person, *roles: Role) -> bool:
    """Whether the page that runs now is still that person's, in the role they had, which must be
    one of `roles` where any are given: a page may be older than what it is allowed to do. Raises
    StoreError."""
    if _served is None or (roles and person.role not in roles):
        return False
    now = visitor(_served)
    return now is not None and (now.id, now.role) == (person.id, person.role)


def serve(
    store: Store, host: str, port: int, *, solo: bool = False, url: str | None = None
) -> None:
    """Serve the study until stopped. `solo`: without sign-in, as one person who is owner and
    annotator; `url`: how visitors reach it, if through a proxy.

    Raises what check_address does, and UserError where the one person of `solo` was sent away.
    """
    global _served  # noqa: PLW0603 - Streamlit runs our script anew for every visit
    check_address(host, port, solo, url)
    import streamlit as st
    from starlette.routing import Route

    _served = Served(store, _alone(store) if solo else None)

    async def join(request: Request) -> Response:
        return await _join(store, request, url)

    app = st.App(_SCRIPT, routes=[Route(JOIN, join, methods=["GET", "POST"])])
    app.run(config=settings(host, port, url))


def settings(host: str, port: int, url: str | None = None) -> dict[str, Any]:
    """Streamlit's settings for the pages."""
    outside = _host_of(url) if url else ""
    return {
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.enableStaticServing": False,
        # Whoever came by another name, such as that of a hostile page, is not let in.
        "server.allowedHosts": (
            sorted({*LOCAL, host.strip("[]"), outside} - {""}) if _is_loopback(host) else []
        ),
        # Told its address, Streamlit asks nobody on the network for it.
        "browser.serverAddress": outside or host,
        "logger.hideWelcomeMessage": True,
        "browser.gatherUsageStats": False,
        # A whole collection after every press costs more than twice what the press does.
        "runner.postScriptGC": False,
        "client.toolbarMode": "minimal",
        # Of the whole theme it would make the page light for those who have it dark.
        # The page says that it is English, and many browsers would then draw Chinese as in Japan.
        "theme.font": ", ".join(FONTS),
        "theme.light.primaryColor": "#2f5bd8",
        "theme.dark.primaryColor": "#7d9bf2",
        # As in style.css, which cannot ask for them.
        "theme.light.backgroundColor": "#ffffff",
        "theme.dark.backgroundColor": "#171614",
        "client.showErrorDetails": "none",
    }


def check_address(host: str, port: int, solo: bool, url: str | None = None) -> None:
    """Raises RefusedError where a page without sign-in would be open to others, UserError where
    nothing can be served: a host that is none of this machine's, a port that is taken, a `url` that
    is none."""
    outside = _host_of(url) if url is not None else None
    if solo and not _is_loopback(host):
        raise RefusedError(
            f"--host {host}: others can reach it, and with --solo nobody signs in; leave --solo "
            "out and invite them, or serve 127.0.0.1"
        )
    if solo and outside is not None and not _is_loopback(outside):
        raise RefusedError(
            f"--url {url}: others can reach it, and with --solo nobody signs in; leave --solo out "
            "and invite them, or --url"
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


def _host_of(url: str) -> str:
    """The host of a --url. Raises UserError where it is no address of pages."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--url {url}: give an address such as https://study.example.org")
    return parts.hostname


def _alone(store: Store) -> Person:
    """The one person of a page without sign-in, made where there is none yet."""
    found = access.named(store, OWNER)
    if found is None and access.owner_token(store):
        found = access.named(store, OWNER)
    if found is None:
        raise UserError(
            f"--solo: {OWNER} was sent away; `qwen-eval annotate invite {store.study.folder} "
            f"{OWNER} --role owner` lets them in again"
        )
    return found


async def _join(store: Store, request: Request, url: str | None) -> Response:
    """GET shows a button: programs that look at links must not use the invitation up. POST
    exchanges it, and ends the session that the browser had of this study before."""
    from starlette.concurrency import run_in_threadpool

    pressed = None
    if request.method == "POST":
        pressed = str((await request.form()).get("token", ""))
    response = await run_in_threadpool(_answer, store, request, url, pressed)
    # The address holds the invitation. (no-referrer would hide where a form came from as well.)
    response.headers["Referrer-Policy"] = "strict-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


def _answer(store: Store, request: Request, url: str | None, pressed: str | None) -> Response:
    from starlette.responses import HTMLResponse, RedirectResponse

    language = _language_of(request.headers)
    cookie = cookie_name(store.study)
    old = request.cookies.get(cookie)
    known = None
    try:
        known = access.who(store, old)
        if pressed is None:
            return HTMLResponse(_door(request.query_params.get("token", ""), language, known=known))
        _must_be_own(request.headers, url, language)
        session = access.redeem(store, pressed, old)
    except StoreError as error:
        told = trouble("unreachable", language, error, owner=False)
        return HTMLResponse(_door(None, language, told), 503)
    except (UserError, RefusedError) as error:
        return HTMLResponse(_door(None, language, str(error), known), 403)
    response = RedirectResponse("./", 303)
    age = access.DAYS * 86400
    secure = (url or "").startswith("https:")
    response.set_cookie(cookie, session, age, httponly=True, samesite="lax", secure=secure)
    return response


def _must_be_own(headers: Mapping[str, str], url: str | None, language: Language) -> None:
    """Raises RefusedError for a form of another site, which must not sign visitors in as somebody
    of its choice."""
    origin = headers.get("origin")
    own = {headers.get("host"), urlsplit(url or "").netloc.lower() or None}
    if origin is not None and origin.partition("://")[2] not in own - {None}:
        _LOG.warning("%s from %s is not from here; behind a proxy, give --url", JOIN, origin)
        raise RefusedError(say("join_elsewhere", language))


def _language_of(headers: Mapping[str, str]) -> Language:
    return "en" if headers.get("accept-language", "zh").lower().startswith("en") else "zh"


def _door(
    token: str | None, language: Language, told: str = "", known: Person | None = None
) -> str:
    """The page at JOIN. `token` None: there is no invitation to use, and `told` says why;
    `known`: who has signed in before."""
    words = {
        key: escape(say(key, language))
        for key in ("join_title", "join_text", "join_button", "join_instead", "join_go_on")
    }
    parts = [f"<h1>{words['join_title']}</h1>"]
    if told:
        parts.append(f'<p role="alert">{escape(told)}</p>')
    if known is not None:
        name = escape(say("join_known", language, name=known.name))
        parts.append(f'<p>{name} <a href="./">{words["join_go_on"]}</a></p>')
    if token is not None:
        button = words["join_button" if known is None else "join_instead"]
        parts.append(
            f'<p>{words["join_text"]}</p><form method="post" action="join"><input type="hidden" '
            f'name="token" value="{escape(token)}"><button>{button}</button></form>'
        )
    elif known is None:
        parts.append(f"<p>{escape(say('sign_in', language))}</p>")
    style = (
        ":root{color-scheme:light dark}"
        "body{font:1.05rem/1.7 system-ui,sans-serif;max-width:34rem;margin:18vh auto;"
        "padding:0 1rem}"
        "button{font:inherit;padding:.5rem 2.2rem;border:0;border-radius:.5rem;background:#2f5bd8;"
        "color:#fff;cursor:pointer}"
    )
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8">'
        f"<title>{words['join_title']}</title>"
        f'<meta name="viewport" content="width=device-width"><style>{style}</style>'
        f"{''.join(parts)}</html>"
    )
