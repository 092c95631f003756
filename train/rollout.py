"""Replies of a policy in training, drawn by the project's own engine.

A process alone holds the weights once: the engine computes with the very tensors that the optimiser
writes to. Where the weights are cut over several processes, each gathers them whole before it
draws, which is a copy. Which seed a reply is drawn with depends on its place alone, so that a
resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from qwen_eval.fileio import text_hash
from qwen_eval.model.engine import Engine, Generate, Generated, Sampling
from qwen_eval.model.transformer import Transformer

from .parallel import World

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Reply:
    """What was drawn after a prompt. `ended`: the last of `ids` is the end token; if not, it was
    cut off at the longest length, or stopped by itself in another way."""

    prompt: Ids
    ids: Ids
    ended: bool


def draw_seed(seed: int, step: int, query: int, draw: int) -> int:
    """Of one reply: 64 bits that say nothing of its neighbours'."""
    return int(text_hash(f"{seed}/{step}/{query}/{draw}", 16), 16)


class Sampler:
    """Draws from `policy`, a Transformer whose weights are shared out or plain.

    end: the token that ends a reply and is part of it. others: tokens that stop it too, and then
    are its last, but are no proper end. dtype: of the weights that are gathered where there are
    several processes. sequences: replies computed at a time.
    """

    def __init__(
        self,
        policy: Transformer,
        world: World,
        sampling: Sampling,
        *,
        end: int,
        others: frozenset[int] = frozenset(),
        dtype: torch.dtype = torch.float32,
        sequences: int = 32,
    ) -> None:
        self._policy, self._world = policy, world
        self._sampling, self._end = sampling, end
        self._others = others - {end}
        alone = world.size == 1
        self._own = _without_copy(policy) if alone else _empty(policy, world.device).to(dtype)
        self._engine = Engine(self._own, max_sequences=sequences)

    def draw(self, prompts: Sequence[Ids], seeds: Sequence[int]) -> list[Reply]:
        """One reply to each prompt, by the weights as they are now. Called in every process."""
        self._engine.weights_changed()
        if self._world.size > 1:
            self._gather()
        requests = [
            Generate(
                prompt,
                replace(self._sampling, seed=seed),
                frozenset({self._end}),
                should_stop=lambda ids: ids[-1] in self._others,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [
            self._reply(request, result)
            for request, result in zip(requests, self._engine.run(requests), strict=True)
        ]

    def _reply(self, request: Generate, result: object) -> Reply:
        assert isinstance(result, Generated)
        otherwise = bool(result.ids) and result.ids[-1] in self._others
        ended = result.reason == "stop" and not otherwise
        ids = (*result.ids, self._end) if ended else result.ids
        return Reply(request.prompt, ids, ended)

    @torch.no_grad()
    def _gather(self) -> None:
        own = self._own.state_dict()
        for name, weight in self._policy.state_dict().items():
            own[name].copy_(weight.full_tensor() if isinstance(weight, DTensor) else weight)


def _without_copy(policy: Transformer) -> Transformer:
    """A plain Transformer on the tensors of one that a single process holds."""
    state: dict[str, Tensor] = {
        name: weight.to_local() if isinstance(weight, DTensor) else weight
        for name, weight in policy.state_dict().items()
    }
    own = _empty(policy, torch.device("meta"))
    own.load_state_dict(state, assign=True)
    if own.config.tied:
        own.head.weight = own.embedding.weight
    return own.requires_grad_(False)


def _empty(policy: Transformer, device: torch.device) -> Transformer:
    """Of the same shape; as long as the policy was trained for, and no longer."""
    config = policy.config
    with device:
        own = Transformer(replace(config, max_length=config.trained_length))
    return own.requires_grad_(False)
