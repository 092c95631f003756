"""Supervised fine-tuning from a recipe (paper, section 3.1): ChatML, the loss on answers only.

Whole models in fp32 master weights, on packed conversations that do not see one another. Knows
nothing of command lines; what a test set holds is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, read_jsonl, text_hash
from qwen_eval.model.tokenizer import Tokenizer
from qwen_eval.model.transformer import Transformer
from qwen_eval.schema import Closed, parse, read_text

from .conversations import (
    ConversationFeed,
    Mask,
    Turns,
    learnt,
    pack_conversations,
    turns_of,
)
from .data.decontaminate import KnownTests
from .data.recipe import Decontaminate, find_files
from .loop import Stage, Trainer
from .parallel import World
from .recipe import MakeCallbacks, Training, no_callbacks


class Conversations(Closed):
    """JSON lines of one kind; `repeat`: how often each conversation is seen in an epoch."""

    files: tuple[str, ...] = Field(min_length=1)
    repeat: int = Field(1, ge=1, le=100)


class FineTuning(Training):
    """The whole file.

    length: tokens of a sequence. batch: sequences of a step over all processes. part: sequences
    that a process computes at a time. mask: which tokens are learnt.
    """

    conversations: dict[str, Conversations] = Field(min_length=1)
    decontaminate: Decontaminate = Field(default_factory=lambda: Decontaminate.model_validate({}))
    mask: Mask = "paper"
    length: int = Field(2048, ge=2)
    epochs: int = Field(1, ge=1)
    batch: int = Field(128, ge=1)
    part: int = Field(1, ge=1)


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


def gather(recipe: FineTuning, data: Path, tests: KnownTests) -> Gathered:
    """Read all conversations but those that share an n-gram with a test set.

    Raises UserError naming file and row for one that is none.
    """
    gathered = Gathered()
    for name, of in recipe.conversations.items():
        for path in find_files(of.files, data, f"conversations {name}"):
            for turns in _rows(path):
                found = tests.found_in("\n\n".join(content for _, content in turns))
                if found is not None:
                    gathered.dropped[found] += 1
                    continue
                gathered.seen[name] += of.repeat
                gathered.turns.extend([turns] * of.repeat)
    return gathered


def _rows(path: Path) -> Iterator[Turns]:
    for number, row in enumerate(read_jsonl(path), 1):
        yield turns_of(row, f"{path}, row {number}")


def prepare(
    recipe: FineTuning,
    gathered: Gathered,
    base: Transformer,
    fingerprint: str,
    tokenizer: Tokenizer,
    out: Path,
    world: World,
    callbacks: MakeCallbacks = no_callbacks,
) -> Trainer:
    """A trainer that stands at the newest state in `out`, else at the base's weights.

    base: the model that is tuned, in fp32; fingerprint: a hash of its files. Raises UserError for
    sequences longer than those that the base was trained on.
    """
    known = base.config.trained_length
    if recipe.length > known:
        raise UserError(f"length: {recipe.length} is more than the {known} tokens the base knows")
    encoded = (learnt(turns, tokenizer, recipe.mask) for turns in gathered.turns)
    feed = ConversationFeed(
        pack_conversations(encoded, recipe.length, tokenizer.eos_id), recipe.seed
    )
    model = recipe.shared(base.config, world, base)
    steps = -(-len(feed) * recipe.epochs // recipe.batch)
    key = recipe.digest(gathered.digest(), fingerprint)
    stages = [Stage(feed, steps, recipe.batch, recipe.part)]
    return recipe.trainer(model, model, stages, key, out, world, callbacks(model))
