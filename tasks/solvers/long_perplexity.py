"""Read a long text window by window and count the nats that the model needs for each token."""

import math
from collections.abc import Iterator

from qwen_eval.types import CountRequest, Item, PerplexityRequest, Score, Solver, Window

BINS = 64
LEAST_BIN = 64  # positions


def long_perplexity(item: Item) -> Solver:
    """One request counts the text's tokens, then one is made for each window.

    `nats_per_token` is minus the mean of the scored tokens' log-probabilities; the exponential of
    its mean over texts, weighed by their `tokens`, is the perplexity. `curve` says how it goes with
    the position in the window: sums of `nats` and `counts` of tokens in bins of `width` positions,
    which can be added up over texts. A text too short for one window is excluded.
    """
    assert item.window is not None
    window, text = item.window, item.prompt.full_text
    counted = yield CountRequest((text,))
    found = list(windows(min(counted.token_counts[0], window.span), window))
    if not found:
        short = f"{counted.token_counts[0]} tokens do not fill a window of {window.length}"
        return Score({}, status="excluded", detail={"excluded": short})
    width = max(window.length // BINS, LEAST_BIN)
    bins: list[list[float]] = [[] for _ in range(-(-window.length // width))]
    for first, scored in found:
        reply = yield PerplexityRequest(text, first, window.length - 1, scored)
        if len(reply.logprobs) != scored:
            raise ValueError(f"{len(reply.logprobs)} tokens were answered, {scored} were asked for")
        # The start token stands at position 0, the last token of every window at length - 1.
        for position, logprob in enumerate(reply.logprobs, window.length - scored):
            bins[position // width].append(-logprob)
    tokens = sum(map(len, bins))
    total = math.fsum(nat for one in bins for nat in one)
    return Score(
        {"nats_per_token": total / tokens + 0.0, "tokens": float(tokens)},
        detail={
            "segments": len(found),
            "curve": {
                "width": width,
                "nats": [math.fsum(one) for one in bins],
                "counts": [len(one) for one in bins],
            },
        },
    )


def windows(tokens: int, window: Window) -> Iterator[tuple[int, int]]:
    """(first token, how many of the last ones are scored) of each window over `tokens` tokens.

    All are full, so that each holds `length` tokens with the start token; what is left over behind
    the last one is not read. They touch, or lie `stride` apart, and then a window scores what the
    one before it has not: every token is scored once.
    """
    width = window.length - 1
    stride = window.stride or width
    for first in range(0, tokens - width + 1, stride):
        yield first, stride if first else width
