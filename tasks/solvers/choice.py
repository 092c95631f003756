"""Pick the option with the largest log-probability."""

from collections.abc import Sequence

from qwen_eval.types import Item, LoglikelihoodRequest, Score, Solver

from ..scorers import find_measure


def choice(item: Item) -> Solver:
    """One request; the answer is the option's text without its leading space."""
    reply = yield LoglikelihoodRequest(item.prompt, item.options, reference=item.gold)
    return chosen(item, reply.logprobs, item.options, reply.token_counts)


def chosen(
    item: Item, logprobs: Sequence[float], texts: Sequence[str], counts: Sequence[int]
) -> Score:
    """The score of an item's options by the log-probabilities of `texts`, of `counts` tokens, each
    over what the recipe's scorer measures of a text.

    The first of equal options wins, as with argmax. `margin` (natural log) is the distance to the
    runner-up: an answer with a margin inside the numeric noise could flip on another machine. Where
    log-probabilities are divided, it is counted over the shorter of the two texts.
    """
    assert item.gold is not None
    sizes = find_measure(item.scorer, item.folder)(texts, counts)
    weighed = [logprob / size for logprob, size in zip(logprobs, sizes, strict=True)]
    first, second, *_ = sorted(range(len(weighed)), key=lambda i: -weighed[i])
    margin = (weighed[first] - weighed[second]) * min(sizes[first], sizes[second])
    return Score(
        {item.metric: float(first == item.gold)},
        answer=item.options[first].strip(),
        detail={"margin": margin},
    )
