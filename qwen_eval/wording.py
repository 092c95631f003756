"""What of a sample is the test's own words, whatever a recipe adds to ask it.

The question is the recipe's item from its first column to its last: without the words around them
("Q:", "Answer:"), with those between them (the letters of options). Knows nothing of models.
"""

from __future__ import annotations

import re

from qwen_eval.taskspec import TaskSpec
from qwen_eval.templates import columns, fill
from qwen_eval.types import Item

_FIRST_TO_LAST = re.compile(r"\{[{%].*[%}]\}", re.DOTALL)  # of a template's columns


def wording(spec: TaskSpec, item: Item) -> tuple[str, str]:
    """An item's question, and the answer that belongs to it; nothing of one that cannot be asked.

    The answer is what the task's reference names and the item does not, such as a worked solution
    or a program; without such a text, the gold answer. Where contexts are the options, the gold one
    comes first, as it does in the text.
    """
    if item.fault:
        return "", ""
    recipe, row = item.recipe.partition("@")[2], item.sample.row
    asked = spec.recipes[recipe].item
    own = _FIRST_TO_LAST.search(asked)
    question = fill(own[0] if own else asked, row)
    if spec.solver_of(recipe) == "contexts":
        return item.target, question
    named = sorted(columns(spec.reference) - columns(asked))
    solution = [row[name] for name in named if isinstance(row.get(name), str)]
    return question, "\n".join(solution) or item.target
