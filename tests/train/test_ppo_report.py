"""The report's figures against sums over the same replies, and what best-of-n is known to do."""

from __future__ import annotations

import math
from statistics import stdev

import numpy as np
import pytest
import torch
from scipy import stats

from qwen_eval.errors import UserError
from qwen_eval.model.engine import Sampling
from qwen_eval.train.ppo_report import (
    Drawn,
    Judges,
    best_of,
    best_of_kl,
    divergence,
    draw,
    matching,
    outcome,
)
from qwen_eval.train.queries import Query
from qwen_eval.train.rollout import Reply
from tests.train.toy_ppo import END, PROMPT, TABLE, Table, every_reply, toy_base
from tests.train.toy_ppo import divergence as exact_divergence


class Judge(Table):
    """Where a reward model's device is read off."""

    @property
    def score(self) -> torch.nn.Linear:
        return torch.nn.Linear(1, 1)


def drawn(rng: np.random.Generator, prompts: int) -> Drawn:
    replies = tuple(Reply((1,), (2, END), True) for _ in range(prompts))
    return Drawn(replies, tuple(rng.normal(size=prompts)), tuple(rng.normal(size=prompts)))


def test_best_of_n_picks_by_the_reward_and_shows_the_judge() -> None:
    draws = [drawn(np.random.default_rng(seed), 5) for seed in range(4)]
    best = best_of(draws)
    for row in range(5):
        at = int(np.argmax([each.rewards[row] for each in draws]))
        assert best.rewards[row] == draws[at].rewards[row]
        assert best.judged[row] == draws[at].judged[row]
    assert best_of(draws[:1]) == draws[0]


@pytest.mark.parametrize("n", [1, 2, 16])
def test_the_kl_of_best_of_n_is_that_of_the_highest_of_n_uniform_draws(n: int) -> None:
    """Its density is n u^(n - 1) on [0, 1], against 1."""
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = n * u ** (n - 1)
    assert best_of_kl(n) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-4)


def test_the_n_of_a_kl() -> None:
    assert [matching(best_of_kl(n), 16) for n in (1, 2, 7, 16)] == [1, 2, 7, 16]
    assert matching(50.0, 16) == 16


def test_a_line_of_the_report() -> None:
    rng = np.random.default_rng(3)
    base, policy = drawn(rng, 200), drawn(rng, 200)
    line = outcome("name", policy, base, 0.5)
    judged = np.array(policy.judged)
    half = stats.t.ppf(0.975, 199) * judged.std(ddof=1) / math.sqrt(200)
    assert (line.low, line.high) == pytest.approx((judged.mean() - half, judged.mean() + half))
    wanted = (judged.mean() - np.mean(base.judged)) / stdev(base.judged)
    assert line.gain == pytest.approx(wanted)
    assert line.gain_low < line.gain < line.gain_high
    assert (line.length, line.missing_end, line.kl) == (2, 0, 0.5)
    same = outcome("base", base, base, 0.0)
    assert (same.gain, same.gain_low, same.gain_high) == (0, 0, 0)


def test_a_reply_without_its_end_is_judged_as_if_it_had_ended() -> None:
    judges = Judges(Judge(), Judge([2 * each for each in TABLE]), END)  # type: ignore[arg-type]
    replies = [
        Reply(PROMPT, (3, END), True),
        Reply(PROMPT, (5, 1), False),
        Reply(PROMPT, (END,), True),
    ]
    found = judges.read(replies)
    assert found.rewards == pytest.approx((TABLE[3], TABLE[1], TABLE[0]))
    assert found.judged == pytest.approx([2 * each for each in found.rewards])
    with pytest.raises(UserError, match="no finite number"):
        Judges(Judge(), Judge([math.nan] * 8), END).read(replies)  # type: ignore[arg-type]


def test_the_divergence_is_that_of_all_replies() -> None:
    """Within the error of as many draws; with the whole distribution drawn from."""
    base, model = toy_base(0), toy_base(0)
    with torch.no_grad():
        model.head.weight.mul_(20)
    queries = [Query(PROMPT, "toy")] * 600
    sampling = Sampling(max_tokens=2, temperature=1.0)
    told: list[int] = []
    (replies,) = draw(
        model, queries, sampling, END, frozenset({6}), seed=0, draws=1, advance=told.append
    )
    assert told == [600]
    known, theirs = every_reply(model), every_reply(base)
    differences = {reply: p - theirs[reply] for reply, p in known.items()}
    mean = exact_divergence(known, theirs)
    spread = math.sqrt(
        math.fsum(math.exp(p) * (differences[reply] - mean) ** 2 for reply, p in known.items())
    )
    assert mean > 0.2
    assert divergence(model, base, replies) == pytest.approx(mean, abs=4 * spread / math.sqrt(600))
