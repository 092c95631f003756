"""Replies are those of the policy as it is now, from the very tensors that are trained."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from qwen_eval.model.engine import Engine, Generate, Sampling
from qwen_eval.model.transformer import Transformer
from qwen_eval.train.optim import Optimiser, adamw
from qwen_eval.train.parallel import World, joined
from qwen_eval.train.policy import Policy, shared_policy
from qwen_eval.train.rollout import Reply, Sampler, draw_seed
from tests.train.toy_training import family

END, OTHER = 256, 255
PROMPTS = [(1, 2, 3) * 6, (1, 2, 3) * 6, (7, 8), tuple(range(20))]


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


def model(name: str = "qwen", **changes: object) -> Transformer:
    made = Transformer(family(name, **changes))
    made.init_weights(torch.Generator().manual_seed(1))
    return made


def policy_of(weights: Transformer, world: World) -> Policy:
    return shared_policy(weights, world, dtype=torch.float32, compiled=False, recompute=False)


def sampler_of(policy: Policy, world: World, **changes: object) -> Sampler:
    said: dict[str, object] = {"max_tokens": 8, "temperature": 1.0, "top_p": 0.9}
    sampling = Sampling(**said | changes)  # type: ignore[arg-type]
    return Sampler(policy.transformer, world, sampling, end=END, others=frozenset({OTHER}))


def local(weight: Tensor) -> Tensor:
    assert isinstance(weight, DTensor)
    return weight.to_local()


def weights_of(policy: Policy) -> dict[str, Tensor]:
    return {name: local(w) for name, w in policy.transformer.state_dict().items()}


def stepped(policy: Policy, rate: float = 0.3) -> None:
    """One step of the optimiser towards token 9 after everything."""
    optimiser = adamw(policy, Optimiser.model_validate({"learning_rate": rate}))
    ids = torch.tensor([PROMPTS[0]])
    ids[:, 1:] = 9
    logprobs, _ = policy.log_probs(ids, torch.ones(1, ids.shape[1] - 1, dtype=torch.bool))
    torch.autograd.backward(-logprobs.sum())
    optimiser.step()
    optimiser.zero_grad()


@pytest.mark.parametrize(("name", "tied"), [("qwen", False), ("qwen3", True)])
def test_log_probs_and_entropy_are_those_of_the_reference_pass(
    world: World, name: str, tied: bool
) -> None:
    plain = model(name, tied=tied)
    policy = policy_of(plain, world)
    ids_BS = torch.randint(0, 257, (3, 12), generator=torch.Generator().manual_seed(2))
    asked_BT = torch.zeros(3, 11, dtype=torch.bool)
    asked_BT[0, 2:7] = asked_BT[1, 10:] = asked_BT[2, :1] = True
    logprobs, entropies = policy.log_probs(ids_BS, asked_BT)
    torch.autograd.backward(logprobs.sum())
    total = torch.zeros(())
    said = logprobs.detach()
    for row, logits in enumerate(plain(list(ids_BS))):
        for t in range(11):
            wanted = logits[t].softmax(-1).log()
            if not asked_BT[row, t]:
                assert said[row, t] == entropies[row, t] == 0
                continue
            total = total + wanted[ids_BS[row, t + 1]]
            chosen = wanted[ids_BS[row, t + 1]].detach()
            torch.testing.assert_close(said[row, t], chosen, atol=1e-4, rtol=0)
            entropy = -(wanted.exp() * wanted).sum().detach()
            torch.testing.assert_close(entropies[row, t], entropy, atol=1e-4, rtol=0)
    torch.autograd.backward(total)
    mine = dict(policy.transformer.named_parameters())
    for key, theirs in plain.named_parameters():
        gradient = mine[key].grad
        assert gradient is not None
        assert theirs.grad is not None
        torch.testing.assert_close(local(gradient), theirs.grad, atol=1e-5, rtol=1e-3)


def test_the_engine_holds_the_very_tensors_of_the_policy(world: World) -> None:
    policy = policy_of(model(), world)
    sampler = sampler_of(policy, world)
    stepped(policy)
    sampler.draw(PROMPTS[:1], [0])
    policy.log_probs(torch.tensor([PROMPTS[0]]), torch.ones(1, 17, dtype=torch.bool))
    own = sampler._engine.model.state_dict()
    for name, weight in weights_of(policy).items():
        assert own[name].data_ptr() == weight.data_ptr(), name


@pytest.mark.parametrize(("name", "tied"), [("qwen", False), ("qwen3", True)])
def test_a_step_of_the_optimiser_is_seen_by_the_next_draw(
    world: World, name: str, tied: bool
) -> None:
    """Also by prompts whose beginning the engine had kept."""
    policy = policy_of(model(name, tied=tied), world)
    sampler, seeds = sampler_of(policy, world), [3, 4, 5, 6]
    before = sampler.draw(PROMPTS, seeds)
    assert sampler.draw(PROMPTS, seeds) == before
    stepped(policy)
    after = sampler.draw(PROMPTS, seeds)
    assert after != before
    plain = model(name, tied=tied)
    plain.load_state_dict(weights_of(policy))
    fresh = Engine(plain, prefixes=False)
    for reply, seed in zip(after, seeds, strict=True):
        sampling = Sampling(max_tokens=8, temperature=1.0, top_p=0.9, seed=seed)
        (wanted,) = fresh.run([Generate(reply.prompt, sampling, frozenset({END, OTHER}))])
        assert reply.ids[: len(wanted.ids)] == wanted.ids  # type: ignore[union-attr]


def test_weights_may_not_change_under_a_running_request() -> None:
    engine = Engine(model())
    engine.submit(Generate((1, 2), Sampling(4)))
    engine.step()
    with pytest.raises(ValueError, match="not done"):
        engine.weights_changed()


def drawn(world: World, favoured: int) -> list[Reply]:
    """Replies of a policy that says one token only."""
    sampler = sampler_of(policy_of(model(), world), world)

    def tilted(hidden_RE: Tensor) -> Tensor:
        logits = torch.zeros(len(hidden_RE), 257)
        logits[:, favoured] = 50.0
        return logits

    sampler._engine.model.logits = tilted  # type: ignore[method-assign]
    return sampler.draw(PROMPTS[:2], [1, 2])


def test_how_a_reply_ends(world: World) -> None:
    """With the end token, which is part of it; with another that stops; or at its longest."""
    assert drawn(world, END) == [Reply(PROMPTS[0], (END,), True)] * 2
    assert drawn(world, OTHER) == [Reply(PROMPTS[0], (OTHER,), False)] * 2
    assert drawn(world, 5) == [Reply(PROMPTS[0], (5,) * 8, False)] * 2


def test_seeds_differ_by_every_place_and_fit_64_bits() -> None:
    seeds = {draw_seed(s, t, q, d) for s in (0, 1) for t in (0, 1) for q in (0, 1) for d in (0, 1)}
    assert len(seeds) == 16
    assert max(map(math.log2, seeds)) < 64
    assert draw_seed(1, 23, 4, 5) != draw_seed(12, 3, 4, 5)
