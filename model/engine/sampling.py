"""From one row of logits to the next token.

The order of the steps is that of transformers: repetition penalty, temperature, top-k, top-p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """temperature 0, or one below 1e-5, is greedy. top_k 0 and top_p 1 keep the whole vocabulary.
    The seed makes one sequence's draws its own, whatever runs beside it."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    @property
    def greedy(self) -> bool:
        """Colder would overflow, and draw nothing but the best."""
        return self.temperature < 1e-5

    def __post_init__(self) -> None:
        """Raises ValueError naming the field out of range."""
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, is {self.max_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must not be negative, is {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], is {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, is {self.top_k}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be positive, is {self.repetition_penalty}")
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed must fit 64 bits, is {self.seed}")


def probabilities(logits_V: Tensor, sampling: Sampling, seen: Sequence[int]) -> Tensor:
    """[V] the distribution to draw from, given the tokens already seen (prompt and reply)."""
    logits_V = penalised(logits_V, sampling, seen) / sampling.temperature
    if 0 < sampling.top_k < logits_V.shape[0]:
        least = logits_V.topk(sampling.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits_V.sort(descending=False)
        below = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        below[-1] = False
        logits_V = logits_V.masked_fill(
            torch.zeros_like(below).scatter(0, order, below), -torch.inf
        )
    return logits_V.softmax(-1)


def penalised(logits_V: Tensor, sampling: Sampling, seen: Sequence[int]) -> Tensor:
    """Divide the positive and multiply the negative logits of seen tokens by the penalty."""
    if sampling.repetition_penalty == 1.0 or not seen:
        return logits_V
    ids = torch.tensor(sorted(set(seen)), device=logits_V.device)
    chosen = logits_V[ids]
    penalty = sampling.repetition_penalty
    return logits_V.index_put((ids,), torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def choose(
    logits_V: Tensor, sampling: Sampling, seen: Sequence[int], generator: torch.Generator | None
) -> int:
    """The next token's id. `logits_V` in fp32."""
    if sampling.greedy:
        return int(penalised(logits_V, sampling, seen).argmax())
    drawn = torch.multinomial(probabilities(logits_V, sampling, seen).cpu(), 1, generator=generator)
    return int(drawn)
