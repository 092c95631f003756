"""Supervised fine-tuning from a recipe (paper, section 3.1): ChatML, the loss on answers only.

Whole models in fp32 master weights, or adapters of a frozen one, on conversations that do not see
one another. Knows nothing of command lines; what a test set holds, and how the harness asks for a
tool, is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, read_jsonl, text_hash
from qwen_eval.model.tokenizer import Tokenizer
from qwen_eval.model.transformer import Transformer
from qwen_eval.schema import Closed, parse, read_text

from .conversations import (
    ConversationFeed,
    Mask,
    Packed,
    Turns,
    learnt,
    pack_conversations,
    turns_of,
)
from .data.decontaminate import KnownTests
from .data.recipe import Decontaminate, find_files
from .documents import string
from .dropout import add_dropout
from .functions import functions_of
from .loop import Stage, Trainer
from .lora import Lora, add_adapters
from .parallel import World
from .recipe import MakeCallbacks, Training, no_callbacks
from .tool_use import ToolPrompts, fireact_turns, tool_turns


class Conversations(Closed):
    """JSON lines of one kind; `repeat`: how often each conversation is seen in an epoch.

    format: chat, how tool_use.py finds tools in a row, or sources that functions.py makes questions
    of. question, answer: columns, where a chat's
    rows have other names for them than sets of instructions have.
    """

    files: tuple[str, ...] = Field(min_length=1)
    repeat: int = Field(1, ge=1, le=100)
    format: Literal["chat", "tools", "fireact", "functions"] = "chat"
    question: tuple[str, ...] = ()
    answer: str | None = None

    @model_validator(mode="after")
    def _both_columns(self) -> Self:
        if bool(self.question) != (self.answer is not None):
            raise ValueError("question and answer are named together")
        if self.question and self.format != "chat":
            raise ValueError(f"question and answer are of chats, not of {self.format}")
        return self


class FineTuning(Training):
    """The whole file.

    length: tokens of a sequence. packing: several conversations in a sequence. epochs or steps:
    until when, one epoch if neither is said. batch: sequences of a step over all processes. part:
    sequences that a process computes at a time. mask: which tokens are learnt. dropout: see
    dropout.py. lora: adapters instead of all weights.
    """

    conversations: dict[str, Conversations] = Field(min_length=1)
    decontaminate: Decontaminate = Field(default_factory=lambda: Decontaminate.model_validate({}))
    mask: Mask = "paper"
    length: int = Field(2048, ge=2)
    packing: bool = True
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    batch: int = Field(128, ge=1)
    part: int = Field(1, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.epochs and self.steps:
            raise ValueError("epochs or steps, not both")
        return self

    def steps_over(self, sequences: int) -> int:
        """Steps on so many sequences."""
        return self.steps or -(-sequences * (self.epochs or 1) // self.batch)

    def adapt(self, model: Transformer) -> None:
        """Make a base's copy what this recipe trains."""
        if self.lora is not None:
            add_adapters(model, self.lora, self.seed)
        if self.dropout:
            add_dropout(model, self.dropout)


def read_fine_tuning(path: Path) -> FineTuning:
    """Read a recipe. Raises UserError with file, line and key for the first mistake."""
    return parse(read_text(path), path, FineTuning)


@dataclass
class Gathered:
    """The conversations of a recipe: those that stay, and how many went, by test set."""

    turns: list[Turns] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def digest(self) -> str:
        """A hash of all that stayed."""
        return text_hash(canonical_json([list(map(list, turns)) for turns in self.turns]))


def gather(
    recipe: FineTuning, data: Path, tests: KnownTests, prompts: ToolPrompts | None = None
) -> Gathered:
    """Read all conversations but those that share an n-gram with a test set.

    prompts: for those with tools.

    Raises UserError naming file and row for one that is none.
    """
    gathered = Gathered()
    for name, of in recipe.conversations.items():
        for path in find_files(of.files, data, f"conversations {name}"):
            for turns in _rows(path, of, prompts):
                found = tests.found_in("\n\n".join(content for _, content in turns))
                if found is not None:
                    gathered.dropped[found] += 1
                    continue
                gathered.seen[name] += of.repeat
                gathered.turns.extend([turns] * of.repeat)
    return gathered


def _rows(path: Path, of: Conversations, prompts: ToolPrompts | None) -> Iterator[Turns]:
    for number, row in enumerate(read_jsonl(path), 1):
        where = f"{path}, row {number}"
        if of.format == "functions":
            yield from functions_of(string(row, "text", where))
        elif of.format == "chat":
            yield turns_of(row, where, of.question, of.answer)
        else:
            assert prompts is not None
            yield (tool_turns if of.format == "tools" else fireact_turns)(row, where, prompts)


def lay_out(recipe: FineTuning, gathered: Gathered, tokenizer: Tokenizer) -> Packed:
    """The conversations in sequences. Raises UserError if nothing is learnt in any."""
    encoded = (learnt(turns, tokenizer, recipe.mask) for turns in gathered.turns)
    return pack_conversations(encoded, recipe.length, tokenizer.eos_id, recipe.packing)


def prepare(
    recipe: FineTuning,
    packed: Packed,
    base: Transformer,
    origin: str,
    out: Path,
    world: World,
    callbacks: MakeCallbacks = no_callbacks,
) -> Trainer:
    """A trainer that stands at the newest state in `out`, else at the base's weights.

    base: the model that is tuned, in fp32; origin: a hash of its files and of the conversations.
    Raises UserError for sequences longer than those that the base was trained on.
    """
    known = base.config.trained_length
    if recipe.length > known:
        raise UserError(f"length: {recipe.length} is more than the {known} tokens the base knows")
    feed = ConversationFeed(packed, recipe.seed, trimmed=not recipe.packing)
    model = recipe.shared(base.config, world, base, recipe.adapt)
    steps = recipe.steps_over(len(feed))
    stages = [Stage(feed, steps, recipe.batch, recipe.part)]
    key = recipe.digest(origin)
    return recipe.trainer(model, model, stages, key, out, world, callbacks(model))
