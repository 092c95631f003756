"""PPO of toy size: eight tokens, rewards from a table, and every possible reply known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.train.data.pack import PackedCorpus
from qwen_eval.train.experience import Figures
from qwen_eval.train.parallel import World
from qwen_eval.train.ppo import PPO, Begun, prepare
from qwen_eval.train.ppo_loop import PPOTrainer
from qwen_eval.train.queries import Queries, Query
from qwen_eval.train.scalar_model import scalar_model
from tests.train.toy_training import family

END = 7
PROMPT = (0, 0)
# The reward of a reply, by the token before its end; that of an empty one by the prompt's last.
TABLE = (0.0, 1.0, 0.2, 0.5, 0.0, 0.3, 0.1, 0.0)
RECIPE: dict[str, Any] = {
    "prompts": {"toy": {"files": ["toy.jsonl"]}},
    "optimiser": {"learning_rate": 0.01, "weight_decay": 0.0, "final": 0.1},
    "value_optimiser": {"learning_rate": 0.01, "weight_decay": 0.0, "final": 1.0},
    "dtype": "float32",
    "steps": 4,
    "queries": 4,
    "max_tokens": 2,
    "top_p": 1.0,
    "part": 64,
    "value_warmup": 0,
    "value_clip": 10.0,
    "save_every": 1000,
}


class ToyTokenizer:
    """All that PPO asks of one beside text."""

    stop_ids = frozenset({END, 6})

    def special(self, name: str) -> int:
        assert name == "<|im_end|>"
        return END


class Table(nn.Module):
    """A reward model: behind every token, the number of the token before."""

    def __init__(self, numbers: Sequence[float] = TABLE) -> None:
        super().__init__()
        self.numbers = torch.tensor(numbers)

    def forward(self, ids_BS: Tensor) -> Tensor:
        told = torch.zeros(ids_BS.shape)
        told[:, 1:] = self.numbers[ids_BS[:, :-1]]
        return told


def toy_config(**changes: Any) -> ModelConfig:
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "ffn_size": 16}
    return family("qwen", **{"vocab_size": 8, **sizes, **changes})


def toy_base(seed: int = 0, **changes: Any) -> Transformer:
    model = Transformer(toy_config(**changes))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


class BreakError(Exception):
    """What a run meets that is asked to break."""


class Watched:
    """A Watcher that keeps what it was told, and may break the run at a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.figures: list[Figures] = []
        self.stop = stop

    def __call__(self, trainer: PPOTrainer, step: int, figures: Figures) -> None:
        self.figures.append(figures)
        if step == self.stop:
            raise BreakError

    def at_end(self) -> None:
        pass

    @property
    def untimed(self) -> list[Figures]:
        return [
            {k: v for k, v in each.items() if not k.endswith("_seconds")} for each in self.figures
        ]


def trainer_of(
    out: Path,
    world: World,
    *,
    base: Transformer | None = None,
    asked: Sequence[Query] | None = None,
    corpus: PackedCorpus | None = None,
    reward: nn.Module | None = None,
    stop: int | None = None,
    **changes: Any,
) -> tuple[PPOTrainer, Watched]:
    """A trainer that stands where `out` says, with rewards of the table."""
    base = base or toy_base()
    begun = Begun(base, scalar_model(base, 0), ToyTokenizer(), ("a", "b"))  # type: ignore[arg-type]
    asked = asked or [Query(PROMPT, f"toy, row {row}") for row in range(1, 9)]
    watched = Watched(stop)
    recipe = PPO.model_validate(RECIPE | changes)
    trainer = prepare(
        recipe, begun, Queries(trained=list(asked)), corpus, out, world, lambda _: [watched]
    )
    judged: Any = reward or Table()
    trainer.models = replace(trainer.models, reward=judged)
    return trainer, watched


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights, not shared out."""
    return {
        name: (w.full_tensor() if isinstance(w, DTensor) else w).detach().clone()
        for name, w in model.state_dict().items()
    }


def plain(trainer: PPOTrainer) -> Transformer:
    """The policy as it is now, apart from its trainer."""
    model = Transformer(trainer.models.policy.transformer.config)
    model.load_state_dict(whole(trainer.models.policy.transformer))
    return model


@torch.no_grad()
def every_reply(model: Transformer) -> dict[tuple[int, ...], float]:
    """The log-probability of every reply of at most two tokens; 6 and END end one."""
    prompt = list(PROMPT)
    first = model([torch.tensor(prompt)])[0][-1].log_softmax(-1)
    found: dict[tuple[int, ...], float] = {(token,): float(first[token]) for token in (6, END)}
    for token in range(6):
        second = model([torch.tensor([*prompt, token])])[0][-1].log_softmax(-1)
        for last in range(8):
            found[token, last] = float(first[token] + second[last])
    return found


def divergence(now: dict[tuple[int, ...], float], then: dict[tuple[int, ...], float]) -> float:
    """KL(now, then) in nats."""
    return math.fsum(math.exp(p) * (p - then[reply]) for reply, p in now.items())
