"""Pick the context after which one and the same continuation is likeliest.

The partial evaluation of Trinh and Le 2018 (arXiv 1806.02847), as WinoGrande and WSC are asked.
"""

from qwen_eval.types import Item, LoglikelihoodRequest, Prompt, Solver

from .choice import chosen


def contexts(item: Item) -> Solver:
    """One request for each context; the answer is the context's text, for `margin` see choice."""
    assert item.gold is not None
    logprobs, counts = list[float](), list[int]()
    for index, context in enumerate(item.options):
        reply = yield LoglikelihoodRequest(
            Prompt(context, item.prompt.prefix, (), item.prompt.max_tokens),
            (item.prompt.text,),
            reference=0 if index == item.gold else None,
        )
        logprobs.append(reply.logprobs[0])
        counts.extend(reply.token_counts)
    return chosen(item, logprobs, (item.prompt.text,) * len(item.options), counts)
