"""Our filters inside a datatrove pipeline drop what they drop outside (where it is installed)."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import pytest

from qwen_eval.train.data.recipe import read_recipe
from qwen_eval.train.data.steps import language_filter, rule_filter
from tests.train.toy_corpus import FOREIGN, PARAGRAPH, SHORT, write_corpus

pytest.importorskip("datatrove")


def test_steps_of_ours_run_in_a_pipeline_of_theirs(tmp_path: Path) -> None:
    from datatrove.data import Document

    from qwen_eval.train.data.on_datatrove import CleanStep, FilterStep

    recipe = read_recipe(write_corpus(tmp_path))
    assert recipe.languages is not None
    texts = [PARAGRAPH * 3 + "\x00caf\u00c3\u00a9", FOREIGN, SHORT]
    documents = [Document(text, str(i), metadata={"source": "en"}) for i, text in enumerate(texts)]
    pipeline = [
        CleanStep(),
        FilterStep("language", partial(language_filter, recipe.languages)),
        FilterStep("rules", partial(rule_filter, recipe.rules, recipe.sources)),
    ]
    data = iter(documents)
    for step in pickle.loads(pickle.dumps(pipeline)):
        data = step.run(data)
    kept = list(data)
    assert [one.id for one in kept] == ["0"]
    assert kept[0].text.endswith("café")
    assert kept[0].metadata["lang"] == "en"


def test_a_drop_has_its_reason() -> None:
    from datatrove.data import Document

    from qwen_eval.train.data.on_datatrove import FilterStep

    step = FilterStep("x", lambda: lambda document: ("rules", "words < 3"))
    assert step.filter(Document("a", "1")) == (False, "rules: words < 3")
