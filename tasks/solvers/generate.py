"""Let the model write, and read its answer with the recipe's scorer."""

from qwen_eval.types import Item, Solver

from ..scorers import read
from .draws import draws, together


def generate(item: Item) -> Solver:
    """A request for each reply; one reply is its own score."""
    scores = []
    for request in draws(item):
        reply = yield request
        scores.append(read(reply.text, item))
    return together(item, scores) if len(scores) > 1 else scores[0]
