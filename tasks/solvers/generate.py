"""Let the model write, and read its answer with the recipe's scorer."""

from qwen_eval.types import GenerateRequest, Item, Solver

from ..scorers import find_scorer


def generate(item: Item) -> Solver:
    """One request, one text, one score."""
    scorer = find_scorer(item.scorer)
    reply = yield GenerateRequest(item.prompt, item.decoding, reference=item.reference)
    return scorer(reply.text, item.target, item.metric)
