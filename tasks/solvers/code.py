"""Let the model complete a program, and run it against the row's tests in the sandbox."""

from qwen_eval.types import GenerateRequest, Item, JudgeRequest, Score, Solver

from ..scorers import find_cut


def code(item: Item) -> Solver:
    """The recipe's cut decides where the program ends; an empty program is no answer."""
    cut, row = find_cut(item.scorer, item.folder), item.sample.row
    reply = yield GenerateRequest(item.prompt, item.decoding, reference=item.reference)
    body = cut(row["prompt"], reply.text)
    if not body.strip():
        return Score({item.metric: 0.0}, status="no_answer")
    verdict = yield JudgeRequest(
        candidate=row["prompt"] + body,
        tests=row["test"],
        entry_point=row["entry_point"],
        preamble=row["prompt"],
    )
    return Score(
        {item.metric: float(bool(verdict.passed))}, answer=body, detail={"verdict": verdict.text}
    )
