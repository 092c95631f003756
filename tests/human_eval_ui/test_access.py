"""Who may come in: once per invitation, as long as nobody sent them away."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.store import access
from qwen_eval.human_eval_ui.store.access import TokenError
from tests.human_eval_ui.made_study import made_store


def test_an_invitation_opens_once(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    token = access.invite(store, "小明")
    session = access.redeem(store, token)
    found = access.who(store, session)
    assert found == access.Person("a1", "小明", "annotator")
    with pytest.raises(TokenError, match="used before"):
        access.redeem(store, token)
    assert access.who(store, session) == found


@pytest.mark.parametrize("token", ["", "x" * 43, "' OR 1=1 --", "\ud800"])
def test_a_wrong_token_opens_nothing(tmp_path: Path, token: str) -> None:
    store, _, _ = made_store(tmp_path, people=1)
    with pytest.raises(TokenError, match="unknown"):
        access.redeem(store, token)
    assert access.who(store, token) is None


def test_a_new_invitation_makes_the_old_one_void(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    old, new = access.invite(store, "x"), access.invite(store, "x")
    with pytest.raises(TokenError, match="taken back"):
        access.redeem(store, old)
    assert access.who(store, access.redeem(store, new))


def test_whoever_is_sent_away_is_out_at_once(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    session = access.redeem(store, access.invite(store, "x"))
    unused = access.invite(store, "x")
    access.revoke(store, "x")
    assert access.who(store, session) is None
    with pytest.raises(TokenError, match="taken back"):
        access.redeem(store, unused)
    with pytest.raises(UserError, match="nobody"):
        access.revoke(store, "y")
    # Invited again, they are who they were.
    again = access.who(store, access.redeem(store, access.invite(store, "x")))
    assert again is not None
    assert again.id == "a1"


def test_a_session_ends_with_the_one_that_takes_its_place(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    old = access.redeem(store, access.invite(store, "x"))
    with pytest.raises(TokenError):
        access.redeem(store, "no token", old)
    assert access.who(store, old)
    new = access.redeem(store, access.invite(store, "y"), old)
    assert access.who(store, old) is None
    found = access.who(store, new)
    assert found is not None
    assert found.name == "y"


@pytest.mark.parametrize("role", ["annotator", "viewer"])
def test_the_name_of_whoever_serves_is_an_owners(tmp_path: Path, role: access.Role) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    with pytest.raises(UserError, match="NAME owner: is whoever serves the study"):
        access.invite(store, " owner ", role)
    access.invite(store, access.OWNER, "owner")


def test_every_server_has_a_link_for_the_owner_and_voids_none(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    tokens = [access.owner_token(store), access.invite(store, access.OWNER, "owner")]
    with pytest.raises(TokenError, match="taken back"):
        access.redeem(store, tokens[0] or "")
    tokens += [access.owner_token(store), access.owner_token(store)]
    people = {access.who(store, access.redeem(store, token or "")) for token in tokens[1:]}
    assert people == {access.named(store, access.OWNER)}


def test_a_server_lets_no_owner_in_again_who_was_sent_away(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    access.owner_token(store)
    access.revoke(store, access.OWNER)
    assert access.owner_token(store) is None
    assert access.named(store, access.OWNER) is None
    access.invite(store, access.OWNER, "owner")
    assert access.owner_token(store)


def test_a_session_ends(tmp_path: Path) -> None:
    store, clock, _ = made_store(tmp_path, people=0)
    session = access.redeem(store, access.invite(store, "x"))
    clock.now += access.DAYS * 86400 + 1
    assert access.who(store, session) is None
    other = access.redeem(store, access.invite(store, "x"))
    access.leave(store, other)
    assert access.who(store, other) is None


def test_a_login_is_known_by_its_address(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    access.invite(store, "x", "viewer", " X@Example.org ")
    found = access.who(store, None, "x@example.ORG")
    assert found is not None
    assert found.role == "viewer"
    assert access.who(store, None, "y@example.org") is None
    assert access.who(store, None, "") is None
    with pytest.raises(UserError, match="is x's already"):
        access.invite(store, "y", "annotator", "x@example.org")


@pytest.mark.parametrize(("name", "role"), [(" ", "annotator"), ("x", "king")])
def test_a_name_and_a_role_are_needed(tmp_path: Path, name: str, role: str) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    with pytest.raises(UserError, match="give a name"):
        access.invite(store, name, role)  # type: ignore[arg-type]


def test_a_role_is_not_changed_in_passing(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    access.invite(store, "x")
    with pytest.raises(UserError, match="x is annotator already"):
        access.invite(store, "x", "owner")


def test_the_database_holds_no_token(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path, people=0)
    token = access.invite(store, "x")
    session = access.redeem(store, token)
    with sqlite3.connect(store.study.folder / "study.db") as database:
        dump = "\n".join(database.iterdump())
    assert re.search(r"came in", dump)
    assert token not in dump
    assert session not in dump
