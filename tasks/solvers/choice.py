"""Pick the option with the largest log-probability."""

from qwen_eval.types import Item, LoglikelihoodRequest, Score, Solver


def choice(item: Item) -> Solver:
    """One request; the answer is the option's text without its leading space.

    The first of equal options wins, as with argmax. `margin` (natural log) is the distance to the
    runner-up: an answer with a margin inside the numeric noise could flip on another machine.
    """
    assert item.gold is not None
    reply = yield LoglikelihoodRequest(item.prompt, item.options, reference=item.gold)
    ranked = sorted(range(len(reply.logprobs)), key=lambda i: -reply.logprobs[i])
    margin = reply.logprobs[ranked[0]] - reply.logprobs[ranked[1]]
    return Score(
        {item.metric: float(ranked[0] == item.gold)},
        answer=item.options[ranked[0]].strip(),
        detail={"margin": margin},
    )
