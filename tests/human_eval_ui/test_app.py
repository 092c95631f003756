"""The pages without a browser: what they show to whom, and what their buttons do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
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

    def opened(store: Store, role: Role, language: str = "en", name: str = "") -> Any:
        access.invite(store, name or f"some {role}", role)
        person = access.named(store, name or f"some {role}")
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
    found = [str(each.value) for kind in kinds for each in getattr(test, kind)]
    return "\n".join(found + [each.proto.body for each in test.get("html")])


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


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
def test_a_page_that_was_not_drawn_to_its_end_keeps_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    """It sends no choice for the control at its foot."""
    store, _, _ = made_store(tmp_path)
    session = access.redeem(store, access.invite(store, "one", "annotator"))
    cookies = {serving.cookie_name(store.study): session}
    monkeypatch.setattr(serving, "_served", serving.Served(store))
    monkeypatch.setattr("streamlit.context", SimpleNamespace(cookies=cookies, locale=locale))
    page = AppTest.from_file(str(SCRIPT)).run(timeout=60)
    before = words(page), [button.label for button in page.button]
    page.segmented_control(key="language").set_value(None).run(timeout=60)
    assert not page.exception
    assert (words(page), [button.label for button in page.button]) == before
    assert page.segmented_control(key="language").value == locale[:2]


def test_a_vote_that_could_not_be_kept_is_said_and_stays_on_the_page(
    tmp_path: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, _ = made_store(tmp_path)
    page = open_page(store, "annotator")
    before = page.button[0].key

    def full(*_: object) -> str:
        raise StoreError("/srv/study.db: database or disk is full; nothing was changed")

    with monkeypatch.context() as broken:
        broken.setattr(voting, "cast", full)
        page.button[0].click().run(timeout=60)
    assert "could not be kept. Please press again." in words(page)
    assert "/srv" not in words(page)
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
        ("ming@example.org", "true", "Judge helpfulness"),
        ("ming@example.org", False, "Open the link of your invitation"),
        ("ming@example.org", "false", "Open the link of your invitation"),
        ("ming@example.org", 1, "Open the link of your invitation"),
        ("ming@example.org", None, "Open the link of your invitation"),
        ("other@example.org", True, "This address is not on the list"),
        ("![x](http://a.test)@b.test", True, "![x](http://a.test)@b.test"),
    ],
)
def test_a_login_counts_where_its_address_is_verified_and_on_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, verified: object, told: str
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


@pytest.mark.parametrize(("role", "shown"), [("annotator", False), ("owner", True)])
def test_only_an_owner_reads_why_the_database_fails(
    tmp_path: Path,
    open_page: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    role: Role,
    shown: bool,
) -> None:
    store, _, _ = made_store(tmp_path)

    def full(*_: object) -> str:
        raise StoreError("/srv/study.db: disk is full; nothing was changed")

    page = open_page(store, role)
    if role == "owner":
        monkeypatch.setattr(owning, "set_state", full)
        next(button for button in page.button if button.label == "Pause").click().run(timeout=60)
        assert "Please press again. (/srv/study.db: disk is full)" in words(page)
    else:
        monkeypatch.setattr(access, "who", full)
        page.run(timeout=60)
        assert "cannot be reached now" in words(page)
    assert ("/srv" in words(page)) is shown
    assert "/srv/study.db: disk is full" in caplog.text


def test_what_people_are_called_is_shown_as_text(tmp_path: Path, open_page: Open) -> None:
    picture = "![x](http://127.0.0.1:9/x.png)<b>"
    store, _, _ = made_store(tmp_path, name=picture)
    page = open_page(store, "owner", name=picture)
    bodies = [each.proto.body for each in page.get("html")]
    inert = picture.replace("<", "&lt;").replace(">", "&gt;")
    for wanted in (f"<h1>{inert}</h1>", f"Signed in as {inert}<"):
        assert any(wanted in body for body in bodies)
    for kind in ("title", "caption", "markdown", "info", "warning", "error", "subheader"):
        assert not [each for each in getattr(page, kind) if "![x]" in each.value]


@pytest.fixture
def as_session(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Pages of somebody who came in by an invitation, and may be sent away."""

    def opened(store: Store, name: str, role: Role) -> Any:
        session = access.redeem(store, access.invite(store, name, role))
        cookies = {serving.cookie_name(store.study): session}
        monkeypatch.setattr(serving, "_served", serving.Served(store))
        monkeypatch.setattr("streamlit.context", SimpleNamespace(cookies=cookies, locale="en"))
        return AppTest.from_file(str(SCRIPT)).run(timeout=60)

    return opened


def test_a_page_acts_for_nobody_who_was_sent_away(
    tmp_path: Path, as_session: Callable[..., Any]
) -> None:
    store, _, _ = made_store(tmp_path)
    page = as_session(store, "boss", "owner")
    person = access.named(store, "boss")
    assert person is not None
    assert serving.still(person)
    assert serving.still(person, "annotator", "owner")
    assert not serving.still(person, "annotator")
    assert not serving.still(Person(person.id, person.name, "viewer"))
    pause = next(button for button in page.button if button.label == "Pause")
    access.revoke(store, "boss")
    assert not serving.still(person, "owner")
    pause.click().run(timeout=60)
    assert not page.exception
    assert store.state() == "open"
    assert "Open the link of your invitation" in words(page)


def test_a_decision_is_an_owners_who_may_still_decide(
    tmp_path: Path, as_session: Callable[..., Any]
) -> None:
    store, _, people = made_store(tmp_path, items=1, people=2)
    for annotator, choice in zip(people, (-2, 2), strict=True):
        one = given(store, annotator)
        seen = -choice if one.swapped else choice
        voting.cast(store, annotator, one.id, voting.Ballot(seen))
    as_session(store, "boss", "owner")
    person = access.named(store, "boss")
    assert person is not None
    page = rendered(store, "disputes", "en", person)
    page.button[0].click().run(timeout=60)
    (decided,) = owning.disputes(store)
    assert abs(decided.decided or 0) == 2
    access.revoke(store, "boss")
    page.button[2].click().run(timeout=60)
    assert "You may not do this any more" in words(page)
    assert owning.disputes(store) == [decided]


def test_solo_is_who_it_was_until_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, _ = made_store(tmp_path)
    person = serving._alone(store)
    monkeypatch.setattr(serving, "_served", serving.Served(store, person))
    assert serving.still(person, "owner")
    access.revoke(store, person.name)
    assert not serving.still(person)


def test_a_vote_more_than_was_wanted_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, _ = made_store(tmp_path)
    now = owning.progress(store)
    monkeypatch.setattr(owning, "progress", lambda _: replace(now, votes=now.wanted + 1))
    page = rendered(store, "progress", "zh")
    assert not page.exception
    assert {"标注员"} == set(page.dataframe[1].value["角色"])


def test_what_is_kept_can_leave_without_findings(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path)
    for state in ("closed", "unblinded"):
        owning.set_state(store, state, owning.COMMAND_LINE)
    page = rendered(store, "results", "en")
    assert 'role="alert"' in words(page)
    labels = [button.proto.label for button in page.get("download_button")]
    assert labels == ["Votes without systems (JSON lines)", "Log of events (JSON lines)"]


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
            if named:
                assert ("表格为英文" in words(page)) is (language == "zh")
                assert len(re.findall(r"\n *\n", page.code[0].value)) >= 2


def rendered(store: Store, view: str, language: Language, person: Person | None = None) -> Any:
    """One view by itself, as the script calls it."""

    def script(view, desk):
        from importlib import import_module

        import_module(f"qwen_eval.human_eval_ui.views.{view}").page(desk)

    desk = Desk(store, person or Person("owner", "owner", "owner"), language)
    return AppTest.from_function(script, args=(view, desk)).run(timeout=60)
