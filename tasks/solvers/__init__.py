"""How a sample is asked: one generator per way, named in a task.yaml's `solver`."""

from collections.abc import Callable

from qwen_eval.types import Item, Solver

from .choice import choice
from .code import code
from .contexts import contexts
from .continuation import continuation
from .generate import generate
from .long_perplexity import long_perplexity
from .needle import needle
from .perplexity import perplexity

SOLVERS: dict[str, Callable[[Item], Solver]] = {
    "choice": choice,
    "code": code,
    "contexts": contexts,
    "continuation": continuation,
    "generate": generate,
    "long_perplexity": long_perplexity,
    "needle": needle,
    "perplexity": perplexity,
}
