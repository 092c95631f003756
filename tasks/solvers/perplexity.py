"""Read a text and count the bits that the model needs for it."""

import math

from qwen_eval.types import Item, PerplexityRequest, Score, Solver


def perplexity(item: Item) -> Solver:
    """One request. `bits_per_byte` is minus the sum of the tokens' log2-probabilities over the
    UTF-8 bytes of the text, so models with different vocabularies can be held against each other;
    `bytes` is the text's weight in the mean of many, which is then all bits over all bytes."""
    reply = yield PerplexityRequest(item.prompt.full_text)
    bits = -math.fsum(reply.logprobs) / math.log(2)
    size = len(item.prompt.full_text.encode())
    return Score({item.metric: bits / size + 0.0, "bytes": float(size)})
