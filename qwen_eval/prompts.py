"""From a sample and a recipe to the exact bytes a model sees.

Only this module makes Items, so a prompt is never read by another recipe's scorer. Exemplars are
fixed per recipe (and subject): a sample's prompt depends on nothing but its row and the recipe.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError

from qwen_eval.datasets import TaskData
from qwen_eval.errors import UserError
from qwen_eval.exemplars import lm_eval_exemplars
from qwen_eval.fileio import text_hash
from qwen_eval.taskspec import Recipe
from qwen_eval.templates import evaluate, fill
from qwen_eval.types import Decoding, Hidden, Item, JudgeRequest, Message, Prompt, Row, Sample

LETTERS = 8  # of a text, to be had for each token of a prompt


class Renderer:
    """Renders the samples of one task under one of its recipes.

    `seed` is that of replies that are drawn. Raises UserError where there are no exemplars.
    """

    def __init__(self, data: TaskData, recipe: str, seed: int = 0) -> None:
        self.data, self.spec = data, data.spec
        self.recipe_id = f"{data.spec.name}@{recipe}"
        self.solver = data.spec.solver_of(recipe)
        self._seed = seed
        self.recipe: Recipe = data.spec.recipes[recipe]
        self._prefixes: dict[str, str] = {}
        self._haystacks: dict[int, str] = {}

    def render(self, sample: Sample) -> Item:
        """The item of a sample; one whose `fault` says why, where the row cannot be asked."""
        try:
            return self._item(sample)
        except Exception as error:  # a template may raise whatever a row's values make it raise
            if isinstance(error, UserError):
                raise
            fault = str(error) if isinstance(error, TemplateError | ValueError) else repr(error)
            return replace(self._empty(sample), fault=fault)

    def _item(self, sample: Sample) -> Item:
        recipe, row = self.recipe, sample.row
        # A context begins the text: the gap stands between it and the item, which continues it.
        gap = "" if self.solver == "contexts" else recipe.gap
        options = tuple(gap + option for option in self._options(row))
        gold = int(fill(self.spec.gold, row)) if self.spec.gold is not None and options else None
        if gold is not None and not 0 <= gold < len(options):
            raise ValueError(f"gold {gold} is no option")
        return replace(
            self._empty(sample),
            prompt=self._conversation(row) if recipe.chat else self._text(row),
            target=fill(self.spec.target, row),
            options=options,
            gold=gold,
            reference=fill(
                self.spec.reference if recipe.reference is None else recipe.reference, row
            ),
            window=recipe.window,
            hidden=self._hidden(row),
            repeats=recipe.repeats,
            cells=recipe.cells or 0,
            repair=recipe.repair is not False,
            also=self.spec.also,
            program=self._program(row) if self.spec.program is not None else None,
        )

    def _program(self, row: Row) -> JudgeRequest:
        program = self.spec.program
        assert program is not None
        head = fill(program.head, row)
        return JudgeRequest(
            head,
            fill(program.tests, row),
            fill(program.entry_point, row),
            head,
            program.timeout,
            alone=program.alone is not None and bool(evaluate(program.alone, row)),
            language=program.language,
        )

    def _empty(self, sample: Sample) -> Item:
        recipe = self.recipe
        decoding = Decoding(
            recipe.max_tokens,
            recipe.stop,
            recipe.temperature,
            recipe.top_p,
            seed=self._seed if recipe.temperature else 0,
        )
        return Item(
            sample,
            self.recipe_id,
            Prompt(),
            "",
            recipe.scorer,
            self.spec.metric,
            decoding=decoding,
            folder=self.spec.folder,
        )

    def _text(self, row: Row) -> Prompt:
        recipe = self.recipe
        gap = recipe.gap if self.solver == "contexts" else ""
        return Prompt(gap + fill(recipe.item, row), self._prefix(row), (), recipe.max_prompt_tokens)

    def _conversation(self, row: Row) -> Prompt:
        recipe, turns = self.recipe, list[Message]()
        if recipe.system is not None:
            turns.append(Message("system", fill(recipe.system, row)))
        asked = fill(recipe.item, row)
        if recipe.shots and recipe.shots.whole:
            asked = self._prefix(row) + asked
        else:
            for shot in self._exemplars(row):
                turns.append(Message("user", fill(recipe.item, shot)))
                turns.append(Message("assistant", fill(recipe.answer, shot)))
        turns.append(Message("user", asked))
        return Prompt(messages=tuple(turns))

    def _hidden(self, row: Row) -> Hidden | None:
        if self.recipe.needle is None:
            return None
        if row.get("depth") not in range(101):
            raise ValueError("depth is no whole number from 0 to 100")
        needle = fill(self.recipe.needle, row)
        return Hidden(needle, self._haystack(needle), row["depth"] / 100)

    def _haystack(self, needle: str) -> str:
        """As many letters as any tokenizer needs, from another text on for every needle."""
        if self.recipe.filler is not None:
            texts = [self.recipe.filler]
        else:
            assert self.spec.haystack is not None
            texts = [row["text"] + "\n\n" for row in self.data.rows(self.spec.haystack)]
        start = int(text_hash(needle), 16) % len(texts)
        if start not in self._haystacks:
            wanted = LETTERS * (self.recipe.length or 0)
            parts, letters = list[str](), 0
            for text in itertools.cycle([*texts[start:], *texts[:start]]):
                parts.append(text[: wanted - letters])
                letters += len(parts[-1])
                if letters >= wanted:
                    break
            self._haystacks[start] = "".join(parts)
        return self._haystacks[start]

    def _options(self, row: Row) -> list[str]:
        column = self.recipe.options_from
        if column is None:
            return [fill(option, row) for option in self.recipe.options]
        own = row.get(column)
        if not isinstance(own, list) or not all(isinstance(each, str) for each in own):
            raise ValueError(f"{column} is no list of texts")
        if len(set(own)) < 2:
            raise ValueError(f"{column} holds fewer than two options")
        return own

    def _prefix(self, row: Row) -> str:
        shots = self.recipe.shots
        match: Any = row[shots.match] if shots and shots.match and shots.match in row else ""
        # The header may name the row's group, so prefixes are kept apart by header as well.
        header = fill(self.recipe.header, {"labels": self.spec.labels, **row})
        key = f"{header}\0{match}"
        if key not in self._prefixes:
            self._prefixes[key] = header + "".join(
                fill(self.recipe.item, shot)
                + self.recipe.gap
                + fill(self.recipe.answer, shot)
                + self.recipe.between
                for shot in ([] if shots and shots.whole else self._exemplars(row))
            )
            if shots and shots.text is not None:
                self._prefixes[key] += self.data.text(shots.text)
            elif shots and shots.prefix is not None:
                self._prefixes[key] += fill(shots.prefix, self._exemplars(row)[0])
        return self._prefixes[key]

    def _exemplars(self, row: Row) -> list[Row]:
        """Rows that are exemplars of a row: as many as the recipe wants, or the one that holds
        them all."""
        shots = self.recipe.shots
        if shots is None:
            return []
        if shots.lm_eval is not None:
            return lm_eval_exemplars(shots.lm_eval, shots.count)
        assert shots.split is not None
        match = row.get(shots.match) if shots.match else None
        rows = self.data.rows(shots.split)
        if shots.match is not None:
            rows = [other for other in rows if other.get(shots.match) == match]
        wanted = 1 if shots.prefix is not None else shots.count
        if len(rows) < wanted:
            raise UserError(
                f"{self.recipe_id}: {self.data.where(shots.split)} holds {len(rows)} exemplars"
                f"{f' for {match}' if match else ''}, {wanted} are needed"
            )
        return list(rows[:wanted])


def prompts_digest(items: Iterable[Item]) -> str:
    """Hash of everything the items ask: equal digests mean byte-equal inputs, in any order."""
    digest = hashlib.sha256()
    prefixes: dict[str, str] = {}
    lines = []
    for item in items:
        prefix = prefixes.setdefault(item.prompt.prefix, text_hash(item.prompt.prefix, 64))
        asked = text_hash(f"{item.prompt.text}\0{item.options}\0{item.prompt.max_tokens}", 64)
        if item.prompt.messages:
            asked += text_hash(f"{item.prompt.messages}", 64)
        if item.window is not None:
            asked += f" {item.window}"
        if item.hidden is not None:
            asked += text_hash(f"{item.hidden}", 64)
        if item.cells:
            asked += f" {item.cells} {item.repair}"
        if item.repeats > 1:
            asked += f" {item.repeats}"
        lines.append(f"{item.sample.id} {prefix} {asked} {item.decoding}\n")
    for line in sorted(lines):
        digest.update(line.encode())
    return digest.hexdigest()[:16]
