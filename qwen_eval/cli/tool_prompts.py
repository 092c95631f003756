"""How the harness asks for tools: a model is trained on the very prompts it is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_eval.train.tool_use import ToolPrompts

TOOLS, INTERPRETER = "bfcl_tools", "code_interpreter_math"


def tool_prompts() -> ToolPrompts:
    """The prompts of these two tasks, each under its first recipe."""
    from qwen_eval.taskspec import DEFAULT_RECIPE, find_task
    from qwen_eval.templates import fill
    from qwen_eval.train.tool_use import ToolPrompts

    recipes = {name: find_task(name)[0].recipes[DEFAULT_RECIPE] for name in (TOOLS, INTERPRETER)}

    def tools(listed: list[dict[str, Any]], question: str) -> str:
        row = {"function": listed, "question": [[{"content": question}]]}
        return fill(recipes[TOOLS].item, row)

    def interpreter(question: str) -> str:
        return fill(recipes[INTERPRETER].item, {"question": question, "files": []})

    return ToolPrompts(recipes[TOOLS].system or "", tools, interpreter)
