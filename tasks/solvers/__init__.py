"""How a sample is asked: one generator per way, named in a task.yaml's `solver`."""

import inspect
from collections.abc import Callable
from pathlib import Path

from qwen_eval.errors import UserError
from qwen_eval.types import Item, Solver

from ..own import own_file, own_function
from .choice import choice
from .code import code
from .code_interpreter import PACKAGES, code_interpreter
from .contexts import contexts
from .continuation import continuation
from .generate import generate
from .hf_agent import hf_agent
from .long_perplexity import long_perplexity
from .needle import needle
from .perplexity import perplexity
from .react import react

SOLVERS: dict[str, Callable[[Item], Solver]] = {
    "choice": choice,
    "code": code,
    "code_interpreter": code_interpreter,
    "contexts": contexts,
    "continuation": continuation,
    "generate": generate,
    "hf_agent": hf_agent,
    "long_perplexity": long_perplexity,
    "needle": needle,
    "perplexity": perplexity,
    "react": react,
}

SESSION_PACKAGES: dict[str, tuple[str, ...]] = {
    "code_interpreter": PACKAGES,
    "hf_agent": (),
}
"""The installed packages that programs may import, by the solvers that open sessions."""


def find_solver(name: str, folder: Path) -> Callable[[Item], Solver]:
    """The solver of a name, or the generator of a file in the task's folder. Raises UserError."""
    if not own_file(name):
        return SOLVERS[name]
    found = own_function(name, folder, ("item",))
    if not inspect.isgeneratorfunction(found):
        raise UserError(f"{folder / name}: is no generator; it yields requests, returns a Score")
    return found
