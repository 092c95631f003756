"""YAML read into a closed schema: the first mistake is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.rules import read_rules
from qwen_eval.schema import Closed, parse
from qwen_eval.taskspec import load_spec


class Inner(Closed):
    count: int = 1


class Toy(Closed):
    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    digest: str = ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\ncolour: red\n", "x.yaml, line 2: colour: unknown key"),
        ("inner:\n  count: few\nname: a\n", "x.yaml, line 2: inner.count: "),
        ("name: a\nmany:\n  - {count: 1}\n  - count: 2\n    size: 3\n",
         "x.yaml, line 5: many.1.size: unknown key"),
        ("many: []\n", "x.yaml: name: Field required"),
        ("name: a\nmany:\n  - 7\n", "x.yaml, line 3: many.0: "),
        ("name: a\n1: b\n", "x.yaml, line 2: 1: Keys should be strings"),
        ("name: a\ndigest: b\n", "x.yaml, line 2: digest: unknown key"),
        ("name: 2026-13-45\n", "x.yaml: not YAML: month must be in 1..12"),
        ("name: [\n", "x.yaml, line 2: not YAML: "),
        ("[" * 5000, "x.yaml: not YAML: "),
        ("\x01", "x.yaml: not YAML: "),
        ("name\n", "x.yaml: expected keys and values"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, Path("x.yaml"), Toy, given={"digest": "d"})
    assert str(caught.value).startswith(says)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    said = "x.yaml"
    try:
        parse(text, Path("x.yaml"), Toy)
    except UserError as error:
        said = str(error)
    assert said.startswith("x.yaml")


def test_what_is_given_joins_what_is_read() -> None:
    assert parse("name: a", Path("x"), Toy, given={"digest": "d"}) == Toy(name="a", digest="d")


def test_both_files_name_the_line_and_what_cannot_be_read(tmp_path: Path) -> None:
    rules = tmp_path / "gate.yaml"
    rules.write_text("rules:\n  - {task: a, type: floor, minimum: 0}\n  - {task: a, type: floor}\n")
    with pytest.raises(UserError, match=r"--rules .*gate\.yaml: line 3: rules, rule 2, floor, min"):
        read_rules(rules)
    held = "quarantine:\n  - {task: a, item: b, until: 2026-12-31}\n"
    rules.write_text("rules:\n  - {task: a, type: floor, minimum: 0}\n" + held)
    with pytest.raises(UserError, match=r"line 4: quarantine, entry 1, reason: Field required"):
        read_rules(rules)
    rules.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"--rules .*gate\.yaml: cannot be read"):
        read_rules(rules)
    with pytest.raises(UserError, match=r"^.*none\.yaml: cannot be read \(No such file"):
        load_spec(tmp_path / "none.yaml")
