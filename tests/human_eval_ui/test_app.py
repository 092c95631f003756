"""The pages without a browser: what they show to whom, and what their buttons do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from qwen_eval.human_eval_ui import serving
from qwen_eval.human_eval_ui.store import access, owning, reading, voting
from qwen_eval.human_eval_ui.store.access import Person, Role
from qwen_eval.human_eval_ui.store.store import Store, StoreError
from qwen_eval.human_eval_ui.views.compare import Desk
from qwen_eval.human_eval_ui.views.words import LANGUAGES, Language
from tests.human_eval_ui.made_study import made_store
from tests.human_eval_ui.test_assigning import given, vote_through

Open = Callable[..., Any]
SCRIPT = Path(serving.__file__).with_name("app.py")


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Open:
    """The pages as somebody of a role sees them, who is taken for signed in."""

    def opened(store: Store, role: Role, language: str = "en") -> Any:
        access.invite(store, f"some {role}", role)
        person = access.named(store, f"some {role}")
        monkeypatch.setattr(serving, "_served", serving.Served(store))
        monkeypatch.setattr(access, "who", lambda *_: person)
        test = AppTest.from_file(str(SCRIPT))
        test.session_state["language"] = language
        test.run(timeout=60)
        assert not test.exception, test.exception
        return test

    return opened


def words(test: Any) -> str:
    """All that is on the page."""
    kinds = ("title", "info", "error", "warning", "caption", "text", "code", "success", "subheader")
    return "\n".join(str(each.value) for kind in kinds for each in getattr(test, kind))


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_annotator_votes_by_a_button(tmp_path: Path, open_page: Open, language: str) -> None:
    store, _, _ = made_store(tmp_path)
    page = open_page(store, "annotator", language=language)
    shortcuts = [button.proto.shortcut for button in page.button]
    assert shortcuts[:8] == ["1", "2", "3", "4", "5", "n", "u", "s"]
    page.button[3].click().run(timeout=60)
    assert not page.exception
    (vote,) = reading.votes_of(store)
    assert vote.choice == 1


def test_a_vote_that_could_not_be_kept_is_said_and_stays_on_the_page(
    tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, _ = made_store(tmp_path)
    page = open_page(store, "annotator")
    before = page.button[0].key

    def full(*_: object) -> str:
        raise StoreError("study.db: database or disk is full; nothing was changed")

    with monkeypatch.context() as broken:
        broken.setattr(voting, "cast", full)
        page.button[0].click().run(timeout=60)
    assert "disk is full" in words(page)
    assert page.button[0].key == before
    page.button[0].click().run(timeout=60)
    assert len(reading.votes_of(store)) == 1


def test_a_page_that_was_left_behind_says_so(tmp_path: Path, open_page: Open) -> None:
    store, _, _ = made_store(tmp_path)
    page = open_page(store, "annotator")
    person = access.named(store, "some annotator")
    assert person is not None
    voting.cast(store, person.id, given(store, person.id).id, voting.Ballot(-2))
    page.button[4].click().run(timeout=60)
    assert "This pair was voted on already." in words(page)
    assert [vote.choice for vote in reading.votes_of(store)] == [-2]


def test_an_end_is_said(tmp_path: Path, open_page: Open) -> None:
    store, _, _ = made_store(tmp_path, items=1)
    page = open_page(store, "annotator")
    page.button[0].click().run(timeout=60)
    assert "Thank you!" in words(page)
    owning.set_state(store, "closed", owning.COMMAND_LINE)
    page = open_page(store, "annotator")
    assert "The study is closed" in words(page)


@pytest.mark.parametrize(
    ("role", "may"), [("annotator", False), ("viewer", False), ("owner", True)]
)
def test_only_an_owner_may_pause(tmp_path: Path, open_page: Open, role: Role, may: bool) -> None:
    store, _, _ = made_store(tmp_path)
    page = open_page(store, role)
    assert ("Pause" in [button.label for button in page.button]) is may


@pytest.mark.parametrize(
    ("address", "verified", "told"),
    [
        ("ming@example.org", True, "Judge helpfulness"),
        ("ming@example.org", False, "Open the link of your invitation"),
        ("other@example.org", True, "other@example.org is not on the list"),
    ],
)
def test_a_login_counts_where_its_address_is_verified_and_on_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, verified: bool, told: str
) -> None:
    store, _, _ = made_store(tmp_path)
    access.invite(store, "小明", email="ming@example.org")
    monkeypatch.setattr(serving, "_served", serving.Served(store))
    monkeypatch.setattr(serving, "has_login", lambda: True)
    login = {"is_logged_in": True, "email": address, "email_verified": verified}
    monkeypatch.setattr("streamlit.user", login)
    monkeypatch.setattr("streamlit.context", SimpleNamespace(cookies={}, locale="en-GB"))
    page = AppTest.from_file(str(SCRIPT)).run(timeout=60)
    assert not page.exception
    assert told in words(page)


@pytest.mark.parametrize(("baseline", "language"), [("north", "zh"), (None, "en")])
def test_an_owner_sees_every_page(
    tmp_path: Path, open_page: Open, baseline: str | None, language: Language
) -> None:
    systems = ("north", "south", "east")
    store, _, people = made_store(tmp_path, systems=systems, baseline=baseline, control_every=5)
    for annotator in people:
        vote_through(store, annotator)
    for state in ("", "closed", "unblinded"):
        if state:
            owning.set_state(store, state, owning.COMMAND_LINE)
        for view in ("progress", "disputes", "results"):
            page = rendered(store, view, language)
            assert not page.exception, (state, view, page.exception)
            named = any(system in words(page) for system in systems)
            assert named is (state == "unblinded" and view == "results")
            assert not page.error


def rendered(store: Store, view: str, language: Language) -> Any:
    """One view by itself, as the script calls it."""

    def script(view, desk):
        from importlib import import_module

        import_module(f"qwen_eval.human_eval_ui.views.{view}").page(desk)

    desk = Desk(store, Person("owner", "owner", "owner"), language)
    return AppTest.from_function(script, args=(view, desk)).run(timeout=60)
