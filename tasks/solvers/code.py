"""Let the model write a program, and run it against the row's tests in the sandbox.

pass@k is the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374).
"""

from dataclasses import replace

from qwen_eval.stats import pass_at_k
from qwen_eval.types import Item, Score, Solver

from ..scorers import find_cut
from ..scorers.programs import called
from .draws import draws, sizes


def code(item: Item) -> Solver:
    """A request for each reply, then a judgement of each program, which is what the task lets it
    begin with and what the recipe's cut leaves of the reply. An empty one is no answer."""
    assert item.program is not None
    cut, head = find_cut(item.scorer, item.folder), item.program.candidate
    entry_point = item.program.entry_point or called(item.program.tests)
    asked = replace(item.program, entry_point=entry_point)
    bodies = []
    for request in draws(item):
        reply = yield request
        bodies.append(cut(head, reply.text, entry_point))
    written = [body for body in bodies if body.strip()]
    right, said = 0, list[str | None]()
    for body in bodies:
        if not body.strip():
            said.append(None)
            continue
        verdict = yield replace(asked, candidate=head + body)
        right += bool(verdict.passed)
        said.append(verdict.text)
    values = {item.metric: right / item.repeats}
    values |= {name: pass_at_k(item.repeats, right, k) for name, k in sizes(item, "pass")}
    if not written:
        return Score(values, status="no_answer")
    detail = {"draws": said} if item.repeats > 1 else {"verdict": said[0]}
    return Score(values, answer=written[0], detail=detail)
