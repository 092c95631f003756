"""Several replies to one question: their seeds, their votes, and the chance that one is right."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.backends.base import Backend, BackendOptions, open_backend
from qwen_eval.datasets import open_data
from qwen_eval.prompts import Renderer
from qwen_eval.runner import Runner, replay
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.tasks.solvers.draws import SEEDS, draws
from qwen_eval.taskspec import find_task
from qwen_eval.types import Decoding, Item, JudgeRequest, Response, Score
from tests.backends.completions import Server, opened
from tests.harness import toys
from tests.model.toy_folder import toy_checkpoint

MODEL = Path(__file__).parents[2] / "model" / "checkpoints" / "tiny"
WARM = Decoding(max_tokens=12, temperature=1.0, seed=3)


def drawn(number: int = 1, **fields: Any) -> Item:
    given: dict[str, Any] = {"decoding": WARM, "repeats": 4, "also": ("maj@4",)}
    return toys.item(number, **given | fields)


# --- seeds -----------------------------------------------------------------------------------


def test_seeds_come_from_the_runs_seed_the_sample_and_the_draw() -> None:
    def seeds(number: int, seed: int) -> list[int]:
        item = drawn(number, decoding=Decoding(temperature=0.5, seed=seed))
        return [request.decoding.seed for request in draws(item)]

    every = [seed for n in range(50) for run in (0, 1) for seed in seeds(n, run)]
    assert len(set(every)) == len(every) == 400
    assert all(0 <= seed < SEEDS for seed in every)
    assert seeds(7, 1) == seeds(7, 1)
    assert seeds(7, 1)[:2] == [r.decoding.seed for r in draws(drawn(7, repeats=2,
        decoding=Decoding(temperature=0.5, seed=1)))]  # fmt: skip


def test_a_single_reply_that_is_drawn_has_its_samples_seed_too() -> None:
    ((one,), (two,)) = (list(draws(drawn(n, repeats=1))) for n in (1, 2))
    assert one.decoding.seed != two.decoding.seed
    (greedy,) = draws(toys.item(1))
    assert greedy.decoding == Decoding()


def replies(backend: Backend, items: Sequence[Item]) -> dict[str, list[str]]:
    done = Runner(backend, SOLVERS["generate"]).run(items)
    return {each.item.sample.id: [r.text for r in each.responses] for each in done}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(open_backend("native", str(folder), BackendOptions(dtype="float32")))
    yield server
    server.stop()


@pytest.mark.parametrize("kind", ["native", "hf", "lm_eval", "openai"])
def test_the_same_command_gives_the_same_replies(kind: str, folder: Path, server: Server) -> None:
    def asked(items: Sequence[Item], batch: int) -> dict[str, list[str]]:
        if kind == "openai":
            return replies(opened(server), items)
        options = BackendOptions(dtype="float32", batch=batch)
        target = f"hf,pretrained={folder},device=cpu" if kind == "lm_eval" else str(folder)
        return replies(open_backend(kind, target, options), items)

    def items(seed: int) -> list[Item]:
        decoding = Decoding(max_tokens=6, temperature=1.0, seed=seed)
        return [drawn(number, repeats=2, decoding=decoding) for number in range(3)]

    first = asked(items(3), 32)
    assert asked(items(3)[:0:-1], 1) == {i.sample.id: first[i.sample.id] for i in items(3)[1:]}
    assert len({text for texts in first.values() for text in texts}) == 6
    second = asked(items(4), 32)
    assert not {t for texts in first.values() for t in texts} & {
        t for texts in second.values() for t in texts
    }


def test_the_bundled_model_repeats_itself_and_follows_the_runs_seed() -> None:
    renderer = Renderer(open_data(find_task("tiny_arithmetic")[0], None), "strict")
    prompt = renderer.render(renderer.data.samples()[0]).prompt

    def asked(backend: Backend, seed: int) -> dict[str, list[str]]:
        warm = Decoding(8, temperature=1.0, seed=seed)
        return replies(backend, [drawn(1, prompt=prompt, decoding=warm)])

    first, again = (
        open_backend("native", str(MODEL), BackendOptions(dtype="float32")) for _ in range(2)
    )
    assert asked(first, 0) == asked(again, 0) != asked(again, 1)


# --- the majority ----------------------------------------------------------------------------


def voted(item: Item, *texts: str) -> Score:
    return replay(
        SOLVERS["generate"](item), [Response(text, finish_reason="stop") for text in texts]
    )


@pytest.mark.parametrize(
    ("texts", "accuracy", "majority", "answer"),
    [
        (("7", "7", "3", "7"), 0.75, 1.0, "7"),
        (("3", "7", "3", "3"), 0.25, 0.0, "3"),
        # As often: the one that came first.
        (("7", "3", "3", "7"), 0.5, 1.0, "7"),
        (("3", "7", "7", "3"), 0.5, 0.0, "3"),
        # Equal by value, however written.
        (("3", "3", "$7.00", "14/2"), 0.5, 0.0, "3"),
        (("3", "7.0", "$7.00", "1"), 0.5, 1.0, "7.0"),
        # What cannot be read has no vote, but is no right answer.
        (("what?", "7", "well", "hm"), 0.25, 1.0, "7"),
        (("what?", "3", "7", "hm"), 0.25, 0.0, "3"),
        (("a", "b", "c", "d"), 0.0, 0.0, None),
    ],
)
def test_the_majority_of_four(
    texts: tuple[str, ...], accuracy: float, majority: float, answer: str | None
) -> None:
    score = voted(drawn(7), *texts)
    assert score.values == {"accuracy": accuracy, "maj@4": majority}
    assert score.answer == answer
    assert score.status == ("scored" if answer else "no_answer")
    assert [one is None for one in score.detail["draws"]] == [t not in "137" and not
        any(c.isdigit() for c in t) for t in texts]  # fmt: skip


def test_a_vote_of_fewer_is_one_of_the_first() -> None:
    item = drawn(7, also=("maj@1", "maj@3", "maj@4", "maj@8"))
    score = voted(item, "3", "7", "7", "3")
    assert score.values == {"accuracy": 0.5, "maj@1": 0.0, "maj@3": 1.0, "maj@4": 0.0}


def test_one_reply_is_its_own_score() -> None:
    score = voted(toys.item(7, also=("maj@8",)), "so 7")
    assert score == Score({"accuracy": 1.0}, answer="7")


@pytest.mark.parametrize("scorer", ["lm_eval_strict_match", "lm_eval_flexible_extract"])
def test_answers_that_a_scorer_holds_equal_are_one_vote(scorer: str) -> None:
    said = [f"The answer is {n}. So" for n in ("1,000", "5", "1000", "6")]
    assert voted(drawn(1000, scorer=scorer), *said).values["maj@4"] == 1.0


# --- pass@k ----------------------------------------------------------------------------------


def judged(right: Sequence[bool | None], also: tuple[str, ...]) -> Score:
    """The score of an item whose draws are right, wrong, or hold no program."""
    texts = ["" if ok is None else f"    return {ok}" for ok in right]
    program = JudgeRequest("def f():\n", "assert f()", "f")
    item = drawn(1, metric="pass@1", scorer="whole", repeats=len(right), also=also, program=program)

    class Judge:
        def judge(self, request: JudgeRequest) -> Response:
            names: dict[str, Callable[[], bool]] = {}
            exec(request.candidate, names)
            return Response(text="-", passed=names["f"](), finish_reason="judged")

    stored = [Response(text, finish_reason="stop") for text in texts]
    return replay(SOLVERS["code"](item), stored, Judge())


@given(st.lists(st.sampled_from([True, False, None]), min_size=2, max_size=8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(right: list[bool | None]) -> None:
    sizes = range(1, len(right) + 1)
    score = judged(right, tuple(f"pass@{k}" for k in (*sizes, 9)))
    assert set(score.values) == {f"pass@{k}" for k in sizes}
    for k in sizes:
        subsets = list(itertools.combinations(right, k))
        share = Fraction(sum(any(subset) for subset in subsets), len(subsets))
        assert score.values[f"pass@{k}"] == pytest.approx(float(share), abs=1e-12)
    assert score.status == ("no_answer" if set(right) == {None} else "scored")


def test_what_was_said_of_each_program_is_kept_in_order() -> None:
    score = judged([None, True, False], ("pass@2",))
    assert score.detail == {"draws": [None, "-", "-"]}
    assert score.answer == "    return True"
    assert judged([False], ()).detail == {"verdict": "-"}


def test_the_guesser_guesses_anew_for_each_draw() -> None:
    backend = open_backend("mock", "random", BackendOptions())
    items = [drawn(n, repeats=8, prompt=drawn(0).prompt) for n in range(40)]
    random.Random(0).shuffle(items)
    said = replies(backend, items)
    assert said == replies(open_backend("mock", "random", BackendOptions()), sorted(
        items, key=lambda item: item.sample.id))  # fmt: skip
    texts = [text for each in said.values() for text in each]
    assert len(set(texts)) > 80, "of 100 answers, in 320 guesses"
