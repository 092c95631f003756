"""Where a program begins and ends in what a model wrote.

A base model writes on after the function it was asked for, one that chats writes around it. A cut
takes (head, reply, name): what the program begins with, what was written, and the function under
test. It returns the reply's part of the program.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap

_NEW_STATEMENT = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE)
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_DEFINITION = re.compile(r"^(?=(?:async |class |def |from |import |@))", re.MULTILINE)


def indentation(head: str, reply: str, name: str) -> str:
    """Up to the first line that starts in column 0 and begins something new.

    Blank lines, comments and closing brackets in column 0 end nothing; neither does a line inside
    a triple-quoted string: a place counts only if the program parses when it is cut there. A line
    that continues an `else` or `except` of column 0 cannot belong to a function body.
    """
    places = [match.start() for match in _NEW_STATEMENT.finditer(reply) if match.start() > 0]
    for place in places:
        if _parsed(head + reply[:place]):
            return reply[:place]
    if places and not _parsed(head + reply):
        return reply[: places[0]]
    return reply


def program(head: str, reply: str, name: str) -> str:
    """The first code block that defines the function; without blocks the text, from the first
    definition on that leads to one.

    It ends with the last statement, such that all up to there parses, that does more than to
    evaluate or assert something. Where nothing defines the function, a block or a text that
    continues `head` is its body; anything else is taken as it is, and will fail.
    """
    blocks = [textwrap.dedent(block) for block in _FENCED.findall(reply)]
    for block in blocks or [reply, *(reply[m.start() :] for m in _DEFINITION.finditer(reply))]:
        kept = _up_to_statement(block)
        if name in _defined(kept):
            return "\n" + kept if head else kept
    for block in [*_FENCED.findall(reply), reply] if head else ():
        for body in (block, textwrap.indent(textwrap.dedent(block), "    ")):
            kept = indentation(head, body, name)
            if kept.strip() and kept[0].isspace() and _parsed(head + kept):
                return kept
    return (blocks or [reply])[0]


def whole(head: str, reply: str, name: str) -> str:
    """Everything the stop strings left, as lm-evaluation-harness takes it."""
    return reply


def qwen_blank_line(head: str, reply: str, name: str) -> str:
    """The released evaluate_humaneval.py: up to the first blank line and the first `def `."""
    return reply.partition("\n\n")[0].partition("def ")[0]


def qwen_chat(head: str, reply: str, name: str) -> str:
    """The released evaluate_chat_humaneval.py: what follows the function's first line in a code
    block, else in the text up to a line that is not indented, else so of any function; else all of
    the text, indented by four."""
    rest = r"(.*?)(?:\n(?!\n*(?:  |\t))|$)"
    for pattern in (
        rf"```(?:[Pp]ython\n)?.*?def\s+{name}.*?:\n(.*?)\n```",
        rf"def\s+{name}.*?:\n{rest}",
        rf"def.*?:\n{rest}",
    ):
        if found := re.search(pattern, reply, re.DOTALL):
            return found[1]
    return textwrap.indent(reply, "    ")


def called(tests: str) -> str:
    """The function under test: the first that the tests call in an assertion, and that Python
    does not have if there is any such. Raises ValueError where they call none."""
    tree = _parsed(tests)
    asserted = [each for each in (tree.body if tree else []) if isinstance(each, ast.Assert)]
    nodes = ast.walk(ast.Module([*asserted], []))
    names = [n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    if not names:
        raise ValueError("the tests call no function")
    return next((name for name in names if not hasattr(builtins, name)), names[0])


def _up_to_statement(text: str) -> str:
    """The longest beginning that parses and ends in a statement that does something; "" if none."""
    ends = [len(text), *reversed([match.start() for match in _NEW_STATEMENT.finditer(text)])]
    for end in ends:
        tree = _parsed(text[:end])
        if tree and tree.body and not isinstance(tree.body[-1], ast.Expr | ast.Assert):
            return text[:end]
    return ""


def _defined(text: str) -> set[str]:
    """Names that a program gives to something at its outermost level."""
    names = set()
    tree = _parsed(text)
    for statement in tree.body if tree else ():
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
