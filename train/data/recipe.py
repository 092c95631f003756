"""A recipe: what goes into a corpus, what every step may drop, how it is mixed and packed.

The schema of the YAML file, closed: an unknown key is refused with its line. Knows the steps'
settings, not the steps.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, text_hash
from qwen_eval.schema import Closed, parse, read_text

from ..documents import Format
from .minhash import FuzzySettings
from .rules import MEASURES, Bound


class Source(Closed):
    """Files of one kind, and how often their documents are seen in training.

    files: patterns below the data folder. lang: of all documents, which then are not asked for
    theirs. rules: the set of rules, else that of a document's language. repeat: 2.5 is twice, and
    half of the documents a third time.
    """

    files: tuple[str, ...] = Field(min_length=1)
    format: Format = "text"
    lang: str = ""
    rules: str = ""
    repeat: float = Field(1.0, ge=0, le=1000)


class Languages(Closed):
    """Which languages stay, and how surely a document must be in one of them."""

    keep: tuple[str, ...] = Field(min_length=1)
    min: float = Field(0.5, ge=0, le=1)


class Scorer(Closed):
    """A trained scorer (`qwen-eval train data-scorer`) and the scores that stay."""

    name: str
    file: str
    bound: Bound


class Decontaminate(Closed):
    """Test sets besides those of the tasks that the caller hands in, and the n-grams' length."""

    against: tuple[str, ...] = ()
    n: int = Field(13, ge=1, le=100)


class Pack(Closed):
    """tokenizer: `bytes`, or a folder with a tokenizer. length: tokens of a sequence."""

    tokenizer: str = "bytes"
    length: int = Field(2048, ge=1)
    shard_sequences: int = Field(8192, ge=1)


class Recipe(Closed):
    """The whole file. A step that is not named is not taken, but for reading and packing.

    heldout: the share of every source's documents that is left out of training, to measure on.
    """

    seed: int = Field(0, ge=0, lt=1 << 63)
    sources: dict[str, Source] = Field(min_length=1)
    instructions: dict[str, Source] = Field(default_factory=dict)
    languages: Languages | None = None
    exact: bool = True
    fuzzy: FuzzySettings | None = None
    rules: dict[str, dict[str, Bound]] = Field(default_factory=dict)
    scorers: tuple[Scorer, ...] = ()
    heldout: float = Field(0.0, ge=0, lt=1)
    decontaminate: Decontaminate = Field(default_factory=lambda: Decontaminate.model_validate({}))
    pack: Pack = Field(default_factory=lambda: Pack.model_validate({}))

    @field_validator("rules")
    @classmethod
    def _measures_are_known(cls, rules: dict[str, dict[str, Bound]]) -> dict[str, dict[str, Bound]]:
        for name, bounds in rules.items():
            for measure in bounds:
                if measure not in MEASURES:
                    raise ValueError(
                        f"{name}: no measure {measure}; there are {', '.join(MEASURES)}"
                    )
        return rules

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for name, source in {**self.sources, **self.instructions}.items():
            if source.rules and source.rules not in self.rules:
                raise ValueError(f"source {name}: rules {source.rules} are not in the recipe")
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"source {name}: use letters, digits, - and _ for its name")
        if both := self.sources.keys() & self.instructions.keys():
            raise ValueError(f"{min(both)} is both a source and an instruction set")
        return self


def read_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises UserError with file, line and key for the first mistake."""
    return parse(read_text(path), path, Recipe)


def find_files(patterns: Sequence[str], folder: Path, where: str) -> list[Path]:
    """Files below `folder` by patterns, each once, in order. Raises UserError for a pattern that
    matches none."""
    found: list[Path] = []
    for pattern in patterns:
        matched = [Path(name) for name in sorted(glob.glob(str(folder / pattern), recursive=True))]
        matched = [path for path in matched if path.is_file()]
        if not matched:
            raise UserError(f"{where}: no file is {folder / pattern}; name the folder with --data")
        found.extend(path for path in matched if path not in found)
    return found


def digest(*settings: Any) -> str:
    """A key of settings: pydantic models, names and numbers."""
    return text_hash(canonical_json([_plain(value) for value in settings]))


def _plain(value: Any) -> Any:
    if isinstance(value, Closed):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
