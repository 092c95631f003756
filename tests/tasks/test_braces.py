"""Where a function in a language with braces ends: after what was asked for, no sooner."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_eval.fileio import read_jsonl
from qwen_eval.tasks.scorers import find_cut

TASKS = Path(__file__).parents[2] / "tasks"
ROWS = [
    (key, row)
    for key in ("js", "java", "cpp")
    for row in read_jsonl(TASKS / f"humanevalpack_{key}" / "sample" / "test.jsonl")
]
JAVA = "class Solution {\n    /** {@code {} */\n    int f(int x) {\n"
RUST = "fn main(){}\n\nfn f<'a>(x: &'a str, y: &'a str) -> Vec<&'a str>{\n"
# head, body up to its end, what a cut adds
BODIES = {
    "nested": ("int f(int x){\n", "  while (x) { if (x > 2) { x -= 2; } }\n  return x;\n}", ""),
    "line comment": ("int f(){\n", "  // } not yet\n  return 1;\n}", ""),
    "block comment": ("int f(){\n", "  /* }\n } */ return 1;\n}", ""),
    "an apostrophe in a comment": ("int f(){\n", "  // it's {\n  return 1;\n}", ""),
    "text": ("int f(){\n", '  puts("}\\"}"); puts("//"); return 1;\n}', ""),
    "characters": ("int f(){\n", "  char a = '}', b = '\\'', c = '\"'; return a;\n}", ""),
    "apostrophes in a number": ("int f(){\n", "  int n = 1'000'000; return n;\n}", ""),
    "raw text of C++": ("int f(){\n", '  auto s = R"x(}")})x"; return 1;\n}', ""),
    "division": ("int f(int a){\n", "  int b = a / 2; { b = a / 3; } return (a) / b;\n}", ""),
    "the head's comment": ("/* { it's */\nint f(){\n", "  return 1;\n}", ""),
    "the head's helper": ("int g(int x){ return x; }\nint f(){\n", "  return g(1);\n}", ""),
    "a head without a brace": ("int f(int x)\n", "{\n  { x++; }\n  return x;\n}", ""),
    "a class around it": (JAVA, "        if (x > 1) { x = 1; }\n        return x;\n    }", "\n}"),
    "a block of text": (
        JAVA,
        '        String s = """\n } " }\n""";\n        return 1;\n    }',
        "\n}",
    ),
    "lifetimes": (RUST, "    let s: &'a str = x; let c = '}';\n    vec![s, y]\n}", ""),
    "raw text of Rust": (RUST, '    let s = r#"}"}"#;\n    vec![x, s]\n}', ""),
    "raw text of Go": ("func f(x int) int {\n", "\ts := `}\\`\n\treturn len(s)\n}", ""),
    "texts of JavaScript": ("const f = (x) => {\n", "  return '}\\'' + `}${x}` + \"}\";\n}", ""),
    "a pattern": ("const f = (x) => {\n", "  return x.replace(/[/{]'\\/{/g, '') / 2;\n}", ""),
    "a pattern returned": ("function f(x) {\n", '  return /["}]/.test(x);\n}', ""),
}
AFTER = ["", "\n", "\n\nint main() { return f(1); }\n", "\n}\n}\n", ";\n// }\nconst g = 1;\n", '"{']


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("after", AFTER)
def test_a_function_ends_with_its_brace(name: str, after: str) -> None:
    head, body, closing = BODIES[name]
    assert find_cut("braces")(head, body + after, "f") == body + closing


@pytest.mark.parametrize("reply", ["", "  return 1;\n", "  if (x) {\n    return 1;\n  }\n", "/* }"])
def test_a_function_that_does_not_end_is_taken_whole(reply: str) -> None:
    assert find_cut("braces")("int f(int x){\n", reply, "f") == reply


@pytest.mark.parametrize(("key", "row"), ROWS)
def test_the_bundled_solutions_are_kept(key: str, row: dict[str, str]) -> None:
    for column in ("canonical_solution", "buggy_solution"):
        for after in ("", "\n\n" + row["prompt"] + row[column]):
            kept = find_cut("braces")(row["prompt"], row[column] + after, row["entry_point"])
            assert kept.split() == row[column].split()


def test_a_long_reply_is_cut_in_its_length() -> None:
    for part in ("{", "}", "'", '"', "`", "/", "/*", 'R"', "r#", '"""', "\\", "return /["):
        find_cut("braces")("const f = () => {\n", part * 20_000, "f")
        find_cut("braces")("int f() {\n", part * 20_000, "f")
