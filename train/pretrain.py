"""Pretraining from a recipe (paper, section 2.4): packed sequences, the next token's loss, AdamW.

The recipe is a closed YAML file. Here it becomes a model, its optimiser and stages of batches; the
steps are loop.py's. Knows nothing of command lines or of how checkpoints are judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig, config_from_hf, config_to_hf
from qwen_eval.model.transformer import Transformer
from qwen_eval.schema import Closed, parse, read_text

from .data.pack import PackedCorpus
from .feed import Feed
from .loop import Stage, Trainer
from .parallel import World
from .recipe import MakeCallbacks, Training, no_callbacks

# What weights fit into: what a model must have in common with one that it goes on from.
SHAPE = (
    *("family", "vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads"),
    *("head_dim", "ffn_size", "rope_base", "norm_eps", "qkv_bias", "out_bias"),
    *("mlp_bias", "qk_norm", "tied"),
)


class Shape(Closed):
    """The model's sizes; what is not said is Qwen's (paper, section 2.3).

    Heads are of hidden_size / num_heads elements unless head_dim says otherwise. max_length, ntk
    and logn are for inference beyond the trained length (section 2.5) and change no training.
    """

    family: Literal["qwen", "qwen2", "qwen3", "llama"] = "qwen"
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int | None = Field(None, ge=1)
    head_dim: int | None = Field(None, ge=2)
    ffn_size: int = Field(ge=1)
    rope_base: float = Field(10000.0, gt=1)
    norm_eps: float = Field(1e-6, gt=0)
    tied: bool = False
    max_length: int | None = Field(None, ge=1)
    ntk: bool = False
    logn: bool = False

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.head_dim is None and self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_heads}")
        try:
            config = self.config(2)
        except UserError as error:
            raise ValueError(str(error).removeprefix("config: ")) from error
        told = config_from_hf(config_to_hf(config))
        for name, value in vars(config).items():
            if getattr(told, name) != value:
                raise ValueError(f"{name} {value}: a model of family {self.family} has none such")
        return self

    def config(self, length: int) -> ModelConfig:
        """The model that is trained on sequences of up to `length` tokens."""
        return ModelConfig(
            family=self.family,
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads or self.num_heads,
            head_dim=self.head_dim or self.hidden_size // self.num_heads,
            ffn_size=self.ffn_size,
            rope_base=self.rope_base,
            norm_eps=self.norm_eps,
            max_length=max(length, self.max_length or length),
            trained_length=length,
            qkv_bias=self.family in ("qwen", "qwen2"),
            qk_norm=self.family == "qwen3",
            tied=self.tied,
            ntk=self.ntk,
            logn=self.logn,
        )


class Length(Closed):
    """A stage: so many tokens in sequences of one length."""

    length: int = Field(ge=2)
    tokens: int = Field(ge=1)


class Pretraining(Training):
    """The whole file.

    batch_tokens: of a step, over all processes. part_tokens: what a process computes at a time; the
    memory for activations grows with it. separate_documents: a token sees its own document only.
    continues: the weights are not drawn but those of a model of this shape.
    """

    model: Shape
    continues: bool = False
    stages: tuple[Length, ...] = Field(min_length=1)
    batch_tokens: int = Field(ge=2)
    part_tokens: int = Field(ge=2)
    separate_documents: bool = False

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        for stage in self.stages:
            for name, tokens in (("batch", self.batch_tokens), ("part", self.part_tokens)):
                if tokens % stage.length:
                    raise ValueError(f"{name}_tokens {tokens} is no multiple of {stage.length}")
            if stage.tokens < self.batch_tokens:
                raise ValueError(f"stages: {stage.tokens} tokens are less than one batch")
        return self

    @property
    def longest(self) -> int:
        """Tokens of the longest sequences."""
        return max(stage.length for stage in self.stages)


def read_pretraining(path: Path) -> Pretraining:
    """Read a recipe. Raises UserError with file, line and key for the first mistake."""
    return parse(read_text(path), path, Pretraining)


def check_base(recipe: Pretraining, base: ModelConfig | None) -> None:
    """Raises UserError where a base is missing, not wanted, or not of the recipe's shape."""
    if base is None and recipe.continues:
        raise UserError("--model: is missing; this recipe goes on from a model")
    if base is not None and not recipe.continues:
        raise UserError("--model: this recipe begins anew; `continues: true` in it would go on")
    ours = recipe.model.config(recipe.longest)
    for name in SHAPE if base is not None else ():
        if getattr(ours, name) != getattr(base, name):
            raise UserError(
                f"--model: its {name} is {getattr(base, name)}, the recipe's "
                f"{getattr(ours, name)}; take the recipe of its size"
            )


def open_corpus(folder: Path, recipe: Pretraining) -> PackedCorpus:
    """A packed corpus that fits the recipe. Raises UserError for any other, or a damaged one."""
    corpus = PackedCorpus(folder, verify=True)
    rows = corpus.manifest["vocab_size"]
    if rows > recipe.model.vocab_size:
        raise UserError(
            f"model: vocab_size {recipe.model.vocab_size} is too small for the {rows} tokens of "
            f"{folder}"
        )
    return corpus


def prepare(
    recipe: Pretraining,
    corpus: PackedCorpus,
    out: Path,
    world: World,
    callbacks: MakeCallbacks = no_callbacks,
    base: tuple[Transformer, str] | None = None,
) -> Trainer:
    """A trainer that stands at the newest state in `out`, else at the beginning.

    callbacks: made of the model, once its weights are shared out. base: the model to go on from, in
    fp32, and a hash of its files.
    Raises UserError where the number of processes does not divide a batch.
    """
    config = recipe.model.config(recipe.longest)
    model = recipe.shared(config, world, recipe.seed if base is None else base[0])
    stages = []
    for stage in recipe.stages:
        sequences = recipe.batch_tokens // stage.length
        feed = Feed(corpus, stage.length, recipe.seed, recipe.separate_documents)
        steps = stage.tokens // recipe.batch_tokens
        stages.append(Stage(feed, steps, sequences, recipe.part_tokens // stage.length))
    origin = () if base is None else (base[1],)
    key = recipe.digest(str(corpus.manifest.get("key", "")), *origin)
    return recipe.trainer(model, model, stages, key, out, world, callbacks(model))
