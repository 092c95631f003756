"""A scorer's minimum against scikit-learn's, and that it tells texts apart."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from qwen_eval.errors import UserError
from qwen_eval.train.data.scorers import (
    BITS,
    examples,
    features,
    held_out,
    load_scorer,
    save_scorer,
    train,
)
from tests.train.corpora import chinese, english
from tests.train.toy_corpus import rows


def shuffled(rng: random.Random, text: str) -> str:
    parts = text.split(" ") if " " in text else list(text)
    rng.shuffle(parts)
    return (" " if " " in text else "").join(parts)


def test_the_weights_are_those_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = random.Random(0)
    good = [english(rng, 30) for _ in range(30)]
    bad = [chinese(rng, 30) for _ in range(10)]
    scorer = train(good, bad, penalty=0.5)
    x = np.zeros((40, 1 << BITS), np.float32)
    for row, text in enumerate([*good, *bad]):
        places, values = features(text)
        x[row, places] = values
    y = [1] * 30 + [0] * 10
    # Its loss is a sum with class weights n / (2 n_class): n times ours.
    theirs = linear.LogisticRegression(C=1 / 0.5, class_weight="balanced", tol=1e-8, max_iter=1000)
    theirs.fit(x, y)
    ours = [scorer.score(text) for text in [*good, *bad]]
    assert np.abs(theirs.predict_proba(x)[:, 1] - ours).max() < 0.01


@pytest.mark.parametrize("make", [english, chinese])
def test_phrases_are_told_from_the_same_words_in_disorder(make) -> None:
    rng = random.Random(1)
    phrases = [make(rng, 12) for _ in range(60)]

    def text() -> str:
        return (
            " ".join(rng.choices(phrases, k=12))
            if make is english
            else "".join(rng.choices(phrases, k=12))
        )

    good = [text() for _ in range(150)]
    bad = [shuffled(rng, text()) for _ in range(150)]
    scorer = train(good[:100], bad[:100])
    assert np.mean([scorer.score(t) > 0.5 for t in good[100:]]) > 0.95
    assert np.mean([scorer.score(t) < 0.5 for t in bad[100:]]) > 0.95


def test_a_saved_scorer_is_the_same(tmp_path: Path) -> None:
    rng = random.Random(2)
    scorer = train([english(rng, 20)], [chinese(rng, 20)])
    save_scorer(tmp_path / "a.npy", scorer)
    assert load_scorer(tmp_path / "a.npy").score("a b 中") == scorer.score("a b 中")


def test_what_is_no_scorer_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "b.npy").write_text("no")
    with pytest.raises(UserError, match="no scorer"):
        load_scorer(tmp_path / "a.npy")
    with pytest.raises(UserError, match="no array"):
        load_scorer(tmp_path / "b.npy")
    with pytest.raises(UserError, match="examples of both kinds"):
        train(["a"], [])


def test_a_text_without_words_has_a_score() -> None:
    scorer = train(["good words here"], ["bad ones there"])
    assert 0 < scorer.score("") < 1


def test_examples_are_split_by_their_rows(tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", [{"text": f"text {i % 300}"} for i in range(400)])
    texts = examples([tmp_path / "a.jsonl"], "text")
    assert len(texts) == 300
    kept, out = held_out(texts)
    assert set(kept) | set(out) == set(texts)
    assert not set(kept) & set(out)
    assert 10 <= len(out) <= 60
    pairs = [{"good": f"good {i}", "bad": f"bad {i}"} for i in range(100)]
    rows(tmp_path / "b.jsonl", [{"good": p["good"], "bad": p["bad"]} for p in pairs])
    sides = [held_out(examples([tmp_path / "b.jsonl"], key))[1] for key in ("good", "bad")]
    assert [t.split()[1] for t in sides[0]] == [t.split()[1] for t in sides[1]] != []
    with pytest.raises(UserError, match="row 1: body is missing"):
        examples([tmp_path / "a.jsonl"], "body")
