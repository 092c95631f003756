"""Ask whether a model would write the right continuation by itself, token for token."""

from qwen_eval.types import Item, LoglikelihoodRequest, Score, Solver


def continuation(item: Item) -> Solver:
    """One request. Right if greedy decoding writes the continuation, which is the item's only
    option; `nats` is minus its log-probability."""
    (wanted,) = item.options
    reply = yield LoglikelihoodRequest(item.prompt, (wanted,), reference=0)
    right = bool(reply.greedy[0])
    detail = {"nats": -reply.logprobs[0]}
    return Score({item.metric: float(right)}, answer=wanted.strip() if right else "", detail=detail)
