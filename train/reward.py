"""A reward model from a recipe (paper, section 3.2.1): preference pretraining, then fine-tuning.

Both are this: pairs of answers, Bradley and Terry's loss on the rewards at the answers' ends, AdamW
at one rate. They differ in their pairs, and in what they begin with: a language model gets a score
drawn by chance, a reward model keeps its own. Knows nothing of command lines; what a test set holds
is handed in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, read_jsonl, text_hash
from qwen_eval.model.tokenizer import Tokenizer
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model
from qwen_eval.schema import Closed, parse, read_text

from .data.decontaminate import KnownTests
from .data.recipe import Decontaminate, find_files
from .loop import Callback, Measured, Stage, Trainer
from .parallel import World
from .preference_loss import preference_losses
from .preferences import (
    EncodedPair,
    FaultyPairError,
    PairFeed,
    PairPart,
    encode_pair,
    pair_of,
    place_of,
)
from .recipe import DTYPES, Training
from .scalar_model import (
    SCORE,
    ScalarModel,
    load_scalar_model,
    rewards,
    scalar_model,
    shared_scalar_model,
)

Faulty = Literal["refuse", "leave_out"]
Half = Literal["a", "b"]
MakeCallbacks = Callable[[ScalarModel], tuple[Callback, ...]]


class Pairs(Closed):
    """JSON lines of one kind. share: those whose prompt's place_of is in [low, high)."""

    files: tuple[str, ...] = Field(min_length=1)
    share: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = self.share
        if not 0 <= low < high <= 1:
            raise ValueError(f"share: [{low}, {high}] is no part of [0, 1]")
        return self

    def half(self, which: Half) -> Pairs:
        """One half of these prompts; the two have none in common."""
        low, high = self.share
        middle = (low + high) / 2
        share = (low, middle) if which == "a" else (middle, high)
        return self.model_copy(update={"share": share})


class RewardTraining(Training):
    """The whole file.

    length: tokens of the longest conversation. batch: pairs of a step over all processes. part:
    pairs that a process computes at a time. margin: what the margins that rows give are multiplied
    by. centring: the weight of rewards' distance from 0. faulty: what is done with rows that are no
    use as pairs, see preferences.FaultyPairError.
    """

    pairs: dict[str, Pairs] = Field(min_length=1)
    decontaminate: Decontaminate = Field(default_factory=lambda: Decontaminate.model_validate({}))
    faulty: Faulty = "refuse"
    length: int = Field(2048, ge=2)
    epochs: int = Field(1, ge=1)
    batch: int = Field(64, ge=1)
    part: int = Field(1, ge=1)
    margin: float = Field(1.0, ge=0)
    centring: float = Field(0.0, ge=0)

    def half(self, which: Half) -> RewardTraining:
        """The same recipe for one half of its prompts."""
        pairs = {name: of.half(which) for name, of in self.pairs.items()}
        return self.model_copy(update={"pairs": pairs})


def read_reward_training(path: Path) -> RewardTraining:
    """Read a recipe. Raises UserError with file, line and key for the first mistake."""
    return parse(read_text(path), path, RewardTraining)


@dataclass
class Gathered:
    """Pairs by the name of their set, and how many rows went, by why."""

    pairs: dict[str, list[EncodedPair]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def all(self) -> list[EncodedPair]:
        """Those of all sets, in order."""
        return [pair for of_set in self.pairs.values() for pair in of_set]

    def digest(self) -> str:
        """A hash of all that stayed."""
        pairs = (encoded.pair for encoded in self.all)
        said = [[list(map(list, p.prompt)), p.chosen, p.rejected, p.margin] for p in pairs]
        return text_hash(canonical_json(said))


def gather(
    sets: Mapping[str, Pairs],
    data: Path,
    tokenizer: Tokenizer,
    length: int,
    faulty: Faulty,
    tests: KnownTests | None = None,
) -> Gathered:
    """Read pairs of up to `length` tokens, but those that share an n-gram with a test set.

    Raises UserError naming file and row for one that is none, and for a set of which nothing stays.
    """
    gathered = Gathered()
    for name, of in sets.items():
        found = gathered.pairs.setdefault(name, [])
        for path in find_files(of.files, data, f"pairs {name}"):
            for number, row in enumerate(read_jsonl(path), 1):
                try:
                    pair = pair_of(row, f"{path}, row {number}")
                    if not of.share[0] <= place_of(pair.prompt) < of.share[1]:
                        continue
                    encoded = encode_pair(pair, tokenizer, length)
                except FaultyPairError as fault:
                    if faulty == "refuse":
                        raise
                    gathered.left_out[fault.cause] += 1
                    continue
                texts = [content for _, content in pair.prompt] + [pair.chosen, pair.rejected]
                known = tests and tests.found_in("\n\n".join(texts))
                if known:
                    gathered.left_out[f"with words of the test set {known}"] += 1
                    continue
                found.append(encoded)
        if not found:
            why = ", ".join(f"{cause}: {count}" for cause, count in gathered.left_out.items())
            raise UserError(f"pairs {name}: no pair of it is left to use ({why or 'share'})")
    return gathered


def load_base(folder: Path) -> Transformer | ScalarModel:
    """What a reward model begins with: a language model, or a reward model with its score."""
    return load_scalar_model(folder) if (folder / SCORE).exists() else load_model(folder)


@dataclass(frozen=True)
class PairLoss:
    """The loss of pairs, as the loop asks for it, with what is logged of them.

    Figures: accuracy, the share of pairs whose preferred answer gets the higher reward, a tie being
    half a pair; margin, by how much it is higher; reward, the mean of both.
    """

    model: ScalarModel
    margin: float
    centring: float

    def __call__(self, part: PairPart, scale: float) -> Measured:
        """The sum over a part's pairs times `scale`. A reward that is no finite number is a
        fault."""
        rewards_B = rewards(self.model, part.ids_BS, part.ends_B)
        chosen_P, rejected_P = rewards_B.chunk(2)
        margins_P = self.margin * part.margins_P.to(rewards_B.device)
        losses_P = preference_losses(chosen_P, rejected_P, margins_P, self.centring)
        chosen_P, rejected_P = chosen_P.detach(), rejected_P.detach()
        apart_P = chosen_P - rejected_P
        figures = {
            "accuracy": (apart_P.sign() + 1) / 2,
            "margin": apart_P,
            "reward": (chosen_P + rejected_P) / 2,
        }
        faults = [
            f"the rewards of {name} are {chosen} and {rejected}"
            for name, chosen, rejected in zip(
                part.names_P, chosen_P.tolist(), rejected_P.tolist(), strict=True
            )
            if not (math.isfinite(chosen) and math.isfinite(rejected))
        ]
        summed: dict[str, Tensor] = {name: of_P.sum() * scale for name, of_P in figures.items()}
        return Measured(losses_P.sum() * scale, summed, faults)


def prepare(
    recipe: RewardTraining,
    pairs: Sequence[EncodedPair],
    key: str,
    base: Transformer | ScalarModel,
    out: Path,
    world: World,
    callbacks: MakeCallbacks,
) -> Trainer:
    """A trainer that stands at the newest state in `out`, else at the base's weights.

    key: a digest of the pairs and of the base's files. Raises UserError for conversations longer
    than those that the base was trained on, and as recipe.trainer does.
    """
    config = base.config if isinstance(base, Transformer) else base.transformer.config
    if recipe.length > config.trained_length:
        raise UserError(
            f"length: {recipe.length} is more than the {config.trained_length} tokens the base "
            "knows"
        )
    model = shared_scalar_model(
        scalar_model(base, recipe.seed),
        world,
        dtype=DTYPES[recipe.dtype],
        compiled=recipe.compile,
        recompute=recipe.recompute,
    )
    # What is compiled for one length is compiled anew for every other.
    feed = PairFeed(pairs, recipe.seed, recipe.length if recipe.compile else None)
    steps = -(-len(feed) * recipe.epochs // recipe.batch)
    stages = [Stage(feed, steps, recipe.batch, recipe.part)]
    loss = PairLoss(model, recipe.margin, recipe.centring)
    return recipe.trainer(model, loss, stages, recipe.digest(key), out, world, callbacks(model))
