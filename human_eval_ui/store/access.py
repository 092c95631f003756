"""Who may come in, and as what: invitations, sessions, roles.

An invitation is good for one person and one time; what it is exchanged for is a session, which the
browser keeps as a cookie. Of both the database holds only a hash. Whoever is named with an address
of mail may come in through a login instead. Knows nothing of pages.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Connection, func, insert, select, update

from qwen_eval.errors import UserError

from .store import Store
from .tables import ANNOTATOR, INVITE, SESSION

Role = Literal["annotator", "viewer", "owner"]
ROLES: tuple[Role, ...] = get_args(Role)
OWNER = "owner"  # the name of whoever serves the study
DAYS = 30  # of a session
_DAY = 86400.0


@dataclass(frozen=True)
class Person:
    """Somebody who may come in. `id` is what exports call them, `name` what the owner does."""

    id: str
    name: str
    role: Role


class TokenError(UserError):
    """A token that opens nothing: unknown, used before, or taken back."""


def invite(store: Store, name: str, role: Role = "annotator", email: str | None = None) -> str:
    """A token that lets one person in once; a known name gets a new one, and those not used before
    are void. Raises UserError for an empty name, a name of another role, OWNER in another role, or
    an address that is another person's."""
    name = name.strip()
    if not name or role not in ROLES:
        raise UserError(f"NAME {name!r}, --role {role}: give a name, and one of {', '.join(ROLES)}")
    if name == OWNER and role != "owner":
        raise UserError(
            f"NAME {name}: is whoever serves the study; take another name, or --role owner"
        )
    with store.writing() as connection:
        person = _person(connection, name, role, email, store.now())
        connection.execute(
            update(INVITE)
            .where(INVITE.c.annotator == person, INVITE.c.used.is_(None))
            .values(revoked=store.now())
        )
        return _issue(store, connection, person, role)


def owner_token(store: Store) -> str | None:
    """A token for OWNER, who is made where there is none yet. Those given before stay good: every
    server of the study asks for one. None where the owner was sent away."""
    with store.writing() as connection:
        known = connection.execute(
            select(ANNOTATOR.c.active).where(ANNOTATOR.c.name == OWNER)
        ).scalar_one_or_none()
        if known is False:
            return None
        person = _person(connection, OWNER, "owner", None, store.now())
        return _issue(store, connection, person, "owner")


def redeem(store: Store, token: str, former: str | None = None) -> str:
    """The session that an invitation is exchanged for. `former`: a session that ends with it.
    Raises TokenError."""
    session = secrets.token_urlsafe(32)
    with store.writing() as connection:
        row = connection.execute(
            select(INVITE, ANNOTATOR.c.active)
            .join(ANNOTATOR)
            .where(INVITE.c.digest == _digest(token))
        ).one_or_none()
        if row is None:
            raise TokenError("this invitation is unknown; is the link whole?")
        if row.revoked is not None or not row.active:
            raise TokenError("this invitation was taken back; ask the owner for a new one")
        if row.used is not None:
            raise TokenError("this invitation was used before; ask the owner for a new one")
        connection.execute(
            update(INVITE).where(INVITE.c.digest == row.digest).values(used=store.now())
        )
        connection.execute(
            insert(SESSION).values(
                digest=_digest(session),
                annotator=row.annotator,
                expires=store.now() + DAYS * _DAY,
            )
        )
        if former:
            _end(connection, former, store.now())
        store.log(connection, row.annotator, "came in")
    return session


def who(store: Store, session: str | None, email: str | None = None) -> Person | None:
    """Whom a session, or a login's verified address, belongs to; None for nobody, and for those who
    were sent away."""
    with store.reading() as connection:
        people = select(ANNOTATOR).where(ANNOTATOR.c.active)
        row = None
        if session:
            row = connection.execute(
                people.join(SESSION).where(
                    SESSION.c.digest == _digest(session),
                    SESSION.c.revoked.is_(None),
                    SESSION.c.expires > store.now(),
                )
            ).one_or_none()
        if row is None and email:
            folded = email.strip().casefold()
            row = connection.execute(people.where(ANNOTATOR.c.email == folded)).one_or_none()
        return None if row is None else Person(row.id, row.name, row.role)


def named(store: Store, name: str) -> Person | None:
    """Somebody by the name that the owner gave them."""
    with store.reading() as connection:
        mine = ANNOTATOR.c.active & (ANNOTATOR.c.name == name)
        row = connection.execute(select(ANNOTATOR).where(mine)).one_or_none()
        return None if row is None else Person(row.id, row.name, row.role)


def revoke(store: Store, name: str) -> None:
    """Send somebody away: their sessions and invitations open nothing any more; their votes stay.
    Raises UserError for an unknown name."""
    with store.writing() as connection:
        person = connection.execute(
            select(ANNOTATOR.c.id).where(ANNOTATOR.c.name == name)
        ).scalar_one_or_none()
        if person is None:
            raise UserError(f"NAME {name}: nobody of that name was invited")
        connection.execute(update(ANNOTATOR).where(ANNOTATOR.c.id == person).values(active=False))
        for table in (INVITE, SESSION):
            mine = (table.c.annotator == person) & table.c.revoked.is_(None)
            connection.execute(update(table).where(mine).values(revoked=store.now()))
        store.log(connection, "", "revoked", annotator=person)


def leave(store: Store, session: str) -> None:
    """End one session."""
    with store.writing() as connection:
        _end(connection, session, store.now())


def _issue(store: Store, connection: Connection, person: str, role: Role) -> str:
    token = secrets.token_urlsafe(32)
    connection.execute(
        insert(INVITE).values(digest=_digest(token), annotator=person, created=store.now())
    )
    store.log(connection, "", "invited", annotator=person, role=role)
    return token


def _person(connection: Connection, name: str, role: Role, email: str | None, now: float) -> str:
    email = email.strip().casefold() if email and email.strip() else None
    known = connection.execute(select(ANNOTATOR).where(ANNOTATOR.c.name == name)).one_or_none()
    if known is not None and known.role != role:
        raise UserError(f"--role {role}: {name} is {known.role} already")
    if email:
        other = connection.execute(
            select(ANNOTATOR.c.name).where(ANNOTATOR.c.email == email, ANNOTATOR.c.name != name)
        ).scalar_one_or_none()
        if other is not None:
            raise UserError(f"--email {email}: is {other}'s already")
    if known is not None:
        values = {"active": True} | ({"email": email} if email else {})
        connection.execute(update(ANNOTATOR).where(ANNOTATOR.c.id == known.id).values(values))
        return str(known.id)
    count = connection.execute(select(func.count()).select_from(ANNOTATOR)).scalar_one()
    person = f"a{count + 1}"
    connection.execute(
        insert(ANNOTATOR).values(
            id=person, name=name, role=role, email=email, active=True, created=now
        )
    )
    return person


def _end(connection: Connection, session: str, now: float) -> None:
    mine = SESSION.c.digest == _digest(session)
    connection.execute(update(SESSION).where(mine).values(revoked=now))


def _digest(token: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
