"""The instructions that people compare answers to: 300 of our own, in Chinese and English.

The paper's Figure 4 rests on 300 Chinese instructions about knowledge, language understanding,
creative writing, mathematics and coding, which it does not publish; ours take their place. Under
the same id the English one asks the same, or the same skill where the Chinese one lives from its
language. They lie as JSON lines, one file a category, one folder a language. What an annotator
should look for in an answer stands beside each of them. Knows nothing of models, answers or votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, text_hash
from qwen_eval.schema import fault_of, read_text

Category = Literal["knowledge", "understanding", "writing", "mathematics", "coding"]
Difficulty = Literal["easy", "medium", "hard"]
Text = Annotated[str, StringConstraints(pattern=r"\S")]

CATEGORIES: tuple[Category, ...] = get_args(Category)
# How the ids of a category begin; understanding has the l of language.
LETTERS: dict[Category, str] = {
    "knowledge": "k",
    "understanding": "l",
    "writing": "w",
    "mathematics": "m",
    "coding": "c",
}
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Instruction:
    """One instruction, and what a good answer to it holds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    id: str  # the category's letter and its number in the file: k001
    category: Category
    difficulty: Difficulty
    text: Text  # what a model is asked, word for word
    # For the annotator, never shown to a model.
    points: Annotated[tuple[Text, ...], Field(min_length=3, max_length=6)]
    answer: Text | None = None  # where one result alone is right


_LINE = TypeAdapter(Instruction)


def load_instructions(language: str = "zh") -> list[Instruction]:
    """Every instruction in a language, category by category.

    Raises UserError for a language without instructions, or naming file and line for a mistake.
    """
    languages = sorted({path.parent.name for path in _FOLDER.glob("*/*.jsonl")})
    if language not in languages:
        raise UserError(f"no instructions in {language!r}; there are: {', '.join(languages)}")
    return [
        instruction
        for category in CATEGORIES
        for instruction in read_instructions(_FOLDER / language / f"{category}.jsonl", category)
    ]


def read_instructions(path: Path, category: Category) -> list[Instruction]:
    """The instructions in a file, all of one category, their ids counted from 1.

    Raises UserError naming file and line, and the key at fault.
    """
    lines = read_text(path).removesuffix("\n").split("\n")
    return [_read_line(line, category, n, f"{path}, line {n}") for n, line in enumerate(lines, 1)]


def instructions_hash(instructions: Sequence[Instruction]) -> str:
    """One hash of all that the instructions say, in their order: a study names it."""
    return text_hash(canonical_json([asdict(instruction) for instruction in instructions]))


def _read_line(line: str, category: Category, number: int, place: str) -> Instruction:
    try:
        found = _LINE.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        unknown = first["type"] == "unexpected_keyword_argument"
        problem = "unknown key" if unknown else first["msg"]
        raise UserError(f"{place}: {fault_of(first['loc'], problem)}") from error
    for key, value, due in (
        ("category", found.category, category),
        ("id", found.id, f"{LETTERS[category]}{number:03}"),
    ):
        if value != due:
            raise UserError(f"{place}: {key}: expected {due}, not {value}")
    return found
