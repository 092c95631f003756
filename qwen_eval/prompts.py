"""From a sample and a recipe to the exact bytes a model sees.

Only this module makes Items, so a prompt is never read by another recipe's scorer. Exemplars are
fixed per recipe (and subject): a sample's prompt depends on nothing but its row and the recipe.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from qwen_eval.datasets import TaskData, lm_eval_exemplars
from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.taskspec import Recipe
from qwen_eval.types import Decoding, Hidden, Item, Message, Prompt, Row, Sample

LETTERS = 8  # of a text, to be had for each token of a prompt

_environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@cache
def _template(source: str) -> Callable[..., str]:
    return _environment.from_string(source).render


def _fill(source: str, row: Row) -> str:
    return _template(source)(**row) if "{" in source else source


class Renderer:
    """Renders the samples of one task under one of its recipes.

    Raises UserError when a row lacks a column that the recipe names, or has no exemplars.
    """

    def __init__(self, data: TaskData, recipe: str) -> None:
        self.data, self.spec = data, data.spec
        self.recipe_id = f"{data.spec.name}@{recipe}"
        self.recipe: Recipe = data.spec.recipes[recipe]
        self._prefixes: dict[str, str] = {}
        self._haystacks: dict[int, str] = {}

    def render(self, sample: Sample) -> Item:
        """The item of a sample."""
        recipe, row = self.recipe, sample.row
        try:
            options = tuple(recipe.gap + option for option in self._options(row))
            gold = int(_fill(self.spec.gold, row)) if self.spec.gold is not None else None
            if gold is not None and not 0 <= gold < len(options):
                raise ValueError(f"gold {gold} is no option")
            prompt = self._conversation(row) if recipe.chat else self._text(row)
            target = _fill(self.spec.target, row)
            reference = _fill(self.spec.reference, row)
            hidden = self._hidden(row)
        except (TemplateError, ValueError) as error:
            raise UserError(f"{self.recipe_id}, sample {sample.id}: {error}") from error
        return Item(
            sample,
            self.recipe_id,
            prompt,
            target,
            recipe.scorer,
            self.spec.metric,
            options,
            gold,
            Decoding(max_tokens=recipe.max_tokens, stop=recipe.stop),
            reference,
            recipe.window,
            hidden,
        )

    def _text(self, row: Row) -> Prompt:
        recipe = self.recipe
        return Prompt(_fill(recipe.item, row), self._prefix(row), (), recipe.max_prompt_tokens)

    def _conversation(self, row: Row) -> Prompt:
        turns = [Message("user", _fill(self.recipe.item, row))]
        if self.recipe.system is not None:
            turns.insert(0, Message("system", _fill(self.recipe.system, row)))
        return Prompt(messages=tuple(turns))

    def _hidden(self, row: Row) -> Hidden | None:
        if self.recipe.needle is None:
            return None
        if row.get("depth") not in range(101):
            raise ValueError("depth is no whole number from 0 to 100")
        needle = _fill(self.recipe.needle, row)
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
            return [_fill(option, row) for option in self.recipe.options]
        own = row.get(column)
        if not isinstance(own, list) or not all(isinstance(each, str) for each in own):
            raise ValueError(f"{column} is no list of texts")
        if len(set(own)) < max(len(own), 2):
            raise ValueError(f"{column} holds fewer than two options, or one twice")
        return own

    def _prefix(self, row: Row) -> str:
        shots = self.recipe.shots
        match: Any = row[shots.match] if shots and shots.match and shots.match in row else ""
        # The header may name the row's group, so prefixes are kept apart by header as well.
        header = _fill(self.recipe.header, row)
        key = f"{header}\0{match}"
        if key not in self._prefixes:
            self._prefixes[key] = header + "".join(
                _fill(self.recipe.item, shot)
                + self.recipe.gap
                + _fill(self.recipe.answer, shot)
                + self.recipe.between
                for shot in self._exemplars(match)
            )
            if shots and shots.text:
                self._prefixes[key] += self.data.text(shots.text)
        return self._prefixes[key]

    def _exemplars(self, match: Any) -> list[Row]:
        shots = self.recipe.shots
        if shots is None or shots.text is not None:
            return []
        if shots.lm_eval is not None:
            return lm_eval_exemplars(shots.lm_eval, shots.count)
        assert shots.split is not None
        rows = self.data.rows(shots.split)
        if shots.match is not None:
            rows = [row for row in rows if row.get(shots.match) == match]
        if len(rows) < shots.count:
            raise UserError(
                f"{self.recipe_id}: {self.data.where(shots.split)} holds {len(rows)} exemplars"
                f"{f' for {match}' if match else ''}, {shots.count} are needed"
            )
        return list(rows[: shots.count])


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
        lines.append(f"{item.sample.id} {prefix} {asked} {item.decoding}\n")
    for line in sorted(lines):
        digest.update(line.encode())
    return digest.hexdigest()[:16]
