"""Let the model write, and read its answer with the recipe's scorer."""

from qwen_eval.types import GenerateRequest, Item, Solver

from ..scorers import read


def generate(item: Item) -> Solver:
    """One request, one text, one score."""
    reply = yield GenerateRequest(item.prompt, item.decoding, reference=item.reference)
    return read(reply.text, item)
