"""Fourteen tools that only say what they would do, and a way to run code that calls them.

Each answers one sentence that holds all it was given, so that the answer of a chain of calls tells
which calls were made, in which order, on what. Those that take an image or a sound refuse what is
none. The names are those of the tools of transformers 4.30; the sentences are ours.
"""

from __future__ import annotations

import ast
import json
from typing import Any

TOOLS: dict[str, Any] = {}
LONGEST, MOST = 400, 30  # letters of a value, values that are told


def _tool(function: Any) -> Any:
    TOOLS[function.__name__] = function
    return function


def _need(kind: str, given: object) -> None:
    if kind not in str(given):
        raise ValueError(f"{given!r} is no {kind}")


@_tool
def document_qa(document: str, question: str) -> str:
    """Answer a question about a document that is an image."""
    _need("image", document)
    return f"[answer to <{question}> in document <{document}>]"


@_tool
def image_captioner(image: str) -> str:
    """Describe an image."""
    _need("image", image)
    return f"[caption of <{image}>]"


@_tool
def image_qa(image: str, question: str) -> str:
    """Answer a question about an image."""
    _need("image", image)
    return f"[answer to <{question}> in picture <{image}>]"


@_tool
def image_segmenter(image: str, label: str) -> str:
    """Mask of what a label names in an image."""
    _need("image", image)
    return f"[mask image of <{label}> in <{image}>]"


@_tool
def transcriber(audio: str) -> str:
    """Write down what is said in a sound."""
    _need("sound", audio)
    return f"[transcript of <{audio}>]"


@_tool
def summarizer(text: str) -> str:
    """Shorten a text."""
    return f"[summary of <{text}>]"


@_tool
def text_classifier(text: str, labels: list[str]) -> str:
    """The label that fits a text best."""
    return f"[label of <{text}> among <{', '.join(sorted(map(str, labels)))}>]"


@_tool
def text_qa(text: str, question: str) -> str:
    """Answer a question from a text."""
    return f"[answer to <{question}> in text <{text}>]"


@_tool
def text_reader(text: str) -> str:
    """Read a text aloud."""
    return f"[sound of <{text}>]"


@_tool
def translator(text: str, src_lang: str, tgt_lang: str) -> str:
    """Translate a text."""
    return f"[<{text}> from {src_lang} into {tgt_lang}]"


@_tool
def image_transformer(image: str, prompt: str) -> str:
    """Change an image as a prompt says."""
    _need("image", image)
    return f"[image <{image}> changed by <{prompt}>]"


@_tool
def text_downloader(url: str) -> str:
    """The text of a web page."""
    return f"[text at <{url}>]"


@_tool
def image_generator(prompt: str) -> str:
    """Draw an image of what a prompt says."""
    return f"[image of <{prompt}>]"


@_tool
def video_generator(prompt: str) -> str:
    """Film what a prompt says."""
    return f"[video of <{prompt}>]"


_state: dict[str, Any] = {}
_last: Any = None


def begin(inputs: dict[str, str]) -> None:
    """A state with the tools and these variables."""
    _state.clear()
    _state.update(TOOLS | inputs)


def perform(code: str) -> None:
    """Run code on the state, statement by statement. The last value of a statement that has one, a
    call or an assignment, is its answer."""
    global _last  # noqa: PLW0603 -- there is one answer at a time
    _last = None
    for statement in ast.parse(code, "<agent>").body:
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), "<agent>", "eval"), _state)
        else:
            exec(compile(ast.Module([statement], []), "<agent>", "exec"), _state)
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            named = [target.id for target in targets if isinstance(target, ast.Name)]
            value = _state[named[0]] if named else None
        if value is not None:
            _last = value


def told() -> str:
    """The answer and the variables, as far as they are texts, as JSON."""
    held = [value for value in _state.values() if _is_short(value)]
    last = _last if _is_short(_last) else None
    return json.dumps({"answer": last, "state": held[-MOST:]}, ensure_ascii=False)


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST
