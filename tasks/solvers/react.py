"""Ask for the next step in the ReAct format (Yao et al. 2022, arXiv 2210.03629), and judge whether
the right tool is called, with what arguments, or none where none is wanted."""

from qwen_eval.types import GenerateRequest, Item, Score, Solver

from ..scorers import find_call_reader
from ..scorers.rouge import Tokenise, rouge_l, words
from ..scorers.tool_calls import Reading
from ..scorers.tool_gold import GoldCall, gold_call

OVER_WORDS = "tool_input_rouge_l_words"
"""Rouge-L where there are no tokens of Qwen's: another figure, under a name of its own."""


def react(item: Item, tokenise: Tokenise | None = None) -> Solver:
    """One request: the model's first step, of which no tool is really called.

    `tokenise`: the tokens of Qwen's vocabulary, whatever model is asked; words where it is None.
    """
    gold = gold_call(item.target)
    read = find_call_reader(item.scorer, item.folder)
    reply = yield GenerateRequest(item.prompt, item.decoding, reference=_solution(gold))
    reading = read(reply.text, reply.finish_reason == "stop")
    if gold is None:
        right = reading.decided and not reading.called
        values = {item.metric: float(right), "false_positive": float(reading.called)}
    else:
        values = {
            item.metric: float(reading.is_for(gold.name)),
            **_of_call(reading, gold, tokenise),
        }
    return Score(
        values,
        answer=f"{reading.name} {reading.arguments}".strip() if reading.called else None,
        status="scored" if reading.decided else "no_answer",
        detail={
            **({"tokens_are": "words"} if gold and tokenise is None else {}),
            **({"arguments": "not readable"} if reading.called and not reading.arguments else {}),
        },
    )


def _of_call(reading: Reading, gold: GoldCall, tokenise: Tokenise | None) -> dict[str, float]:
    """The figures of a sample that wants a call. Rouge-L is of the arguments alone, whichever tool
    is called; exact is a call that is right as a whole."""
    right = reading.is_for(gold.name)
    name = OVER_WORDS if tokenise is None else "tool_input_rouge_l"
    return {
        "tool_selection": float(right),
        name: rouge_l(gold.text, reading.arguments, tokenise or words),
        "exact_arguments": float(right and gold.wants(reading.arguments)),
        **({} if reading.lenient is None else {"lenient_arguments": float(reading.lenient)}),
    }


def _solution(gold: GoldCall | None) -> str:
    """A reply that solves the sample."""
    if gold is None:
        return "Thought: I now know the final answer\nFinal Answer: no tool is needed"
    return f"Thought: {gold.name} can tell\nAction: {gold.name}\nAction Input: {gold.text}"
