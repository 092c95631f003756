"""task.yaml: a closed schema whose errors name file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qwen_eval.cli.setup import load_tasks
from qwen_eval.errors import UserError
from qwen_eval.taskspec import TASKS_DIR, find_task, load_spec, task_names

GOOD = {
    "name": "toy",
    "version": 1,
    "title": "a toy",
    "licence": "MIT",
    "solver": "choice",
    "metric": "accuracy",
    "splits": {"test": {"mirror": "toy/test.jsonl"}, "dev": {"mirror": "toy/dev.jsonl"}},
    "gold": "{{ answer }}",
    "target": "{{ answer }}",
    "recipes": {
        "strict": {
            "version": 1,
            "source": "here",
            "item": "{{ question }}",
            "options": ["A", "B"],
            "scorer": "argmax",
            "shots": {"count": 1, "split": "dev"},
        }
    },
}


def write(folder: Path, change: str = "", value: object = None) -> Path:
    """GOOD with one key (dotted) replaced, or removed for None."""
    raw = yaml.safe_load(yaml.safe_dump(GOOD))
    if change:
        *way, last = change.split(".")
        place = raw
        for key in way:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path))
    assert spec.name == "toy"
    assert spec.recipes["strict"].gap == " "


@pytest.mark.parametrize(
    ("change", "value", "named"),
    [
        ("colour", "red", "colour: unknown key"),
        ("recipes.strict.colour", "red", "recipes.strict.colour: unknown key"),
        ("title", None, "title"),
        ("version", "two", "version"),
        ("solver", "guess", "solver"),
        ("gold", None, "gold"),
        ("recipes.strict", None, "strict is missing"),
        ("recipes.strict.options", ["A"], "at least two"),
        ("recipes.strict.shots.split", "train", "train is not among splits"),
        ("recipes.strict.shots.text", "also.txt", "exactly one of"),
        ("recipes.strict.max_tokens", 0, "max_tokens"),
        ("recipes.strict.options_from", "choices", "options are given already"),
        ("solver", "perplexity", "perplexity is measured in bits_per_byte"),
        ("metric", "bits_per_byte", "perplexity is measured in bits_per_byte"),
        ("solver", "long_perplexity", "long_perplexity is measured in nats_per_token"),
        ("metric", "nats_per_token", "long_perplexity is measured in nats_per_token"),
        ("recipes.strict.length", 64, "recipes.strict.length: nothing to choice"),
        ("recipes.strict.needle", "{{ key }}", "recipes.strict.needle: nothing to choice"),
        ("haystack", "books", "haystack: books is not among splits"),
        ("recipes.strict.stride", 8, "stride: must be less than the length of 0, is 8"),
        ("splits.test", {"mirror": "a", "own": "b"}, "exactly one of mirror, own and given"),
        ("splits.test", {"hub": "test"}, "exactly one of mirror, own and given"),
        ("splits.test", {"own": "b", "sample": "c"}, "has no hub and no sample"),
        ("splits.test", {"own": "b", "given": True}, "exactly one of mirror, own and given"),
        ("splits.test", {"given": True, "hub": "test"}, "has no hub and no sample"),
        ("eval_split", "validation", "validation is not among splits"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: str, value: object, named: str) -> None:
    path = write(tmp_path, change, value)
    with pytest.raises(UserError) as error:
        load_spec(path)
    assert str(path) in str(error.value)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({}, "recipes.strict.length: missing; long_perplexity needs it"),
        ({"length": 64}, "recipes.strict.span: missing; long_perplexity needs it"),
        ({"length": 64, "span": 63}, "span: must hold one length of 64, is 63"),
        ({"length": 64, "span": 64, "stride": 64}, "stride: must be less than the length of 64"),
        ({"length": 1, "span": 64}, "recipes.strict.length"),
    ],
)
def test_a_long_text_is_read_by_length_and_span(
    tmp_path: Path, keys: dict[str, int], named: str
) -> None:
    recipe = {"version": 1, "source": "here", "item": "{{ text }}", "scorer": "nats"}
    raw = {key: value for key, value in GOOD.items() if key != "gold"}
    raw |= {"solver": "long_perplexity", "metric": "nats_per_token", "target": ""}
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(raw | {"recipes": {"strict": recipe | keys}}))
    with pytest.raises(UserError) as error:
        load_spec(path)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("keys", "haystack", "named"),
    [
        ({"length": 64}, None, "recipes.strict.needle: missing; needle needs it"),
        ({"needle": "x"}, None, "recipes.strict.length: missing; needle needs it"),
        ({"length": 64, "needle": "x"}, None, "exactly one of filler and haystack"),
        ({"length": 64, "needle": "x", "filler": "y"}, "dev", "exactly one of filler and haystack"),
        (
            {"length": 64, "needle": "x", "span": 64},
            "dev",
            "strict.span: nothing to needle",
        ),
    ],
)
def test_a_needle_is_hidden_in_one_thing(
    tmp_path: Path, keys: dict[str, object], haystack: str | None, named: str
) -> None:
    recipe = {"version": 1, "source": "here", "item": "?", "scorer": "inclusion"}
    raw = {key: value for key, value in GOOD.items() if key != "gold"}
    raw |= {"solver": "needle", "haystack": haystack, "recipes": {"strict": recipe | keys}}
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError) as error:
        load_spec(path)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("solver", "keys", "named"),
    [
        ("generate", {"system": "Be brief."}, "system: only a recipe with chat has one"),
        ("generate", {"chat": True, "system": ""}, "recipes.strict.system"),
        ("generate", {"chat": True, "header": "x"}, "header: nothing to a recipe with chat"),
        ("generate", {"chat": True, "max_prompt_tokens": 9}, "max_prompt_tokens: nothing to"),
        ("continuation", {"chat": True}, "recipes.strict.chat: nothing to continuation"),
        ("generate", {"top_p": 0.9}, "temperature: at 0 all replies are the same"),
        ("generate", {"repeats": 4}, "temperature: at 0 all replies are the same"),
        ("continuation", {"temperature": 1.0, "repeats": 4}, "recipes.strict.repeats: nothing to"),
        ("generate", {"macro": True}, "macro: the task has no groups"),
        ("code", {}, "program: how `code` judges"),
        ("generate", {"chat": True, "system": "Be brief."}, None),
    ],
)
def test_keys_that_do_not_go_together_are_named(
    tmp_path: Path, solver: str, keys: dict[str, object], named: str | None
) -> None:
    recipe = {"version": 1, "source": "here", "item": "?", "scorer": "answered"}
    raw = {key: value for key, value in GOOD.items() if key != "gold"}
    raw |= {"solver": solver, "recipes": {"strict": recipe | keys}}
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(raw))
    if named is None:
        assert load_spec(path).recipes["strict"].chat
        return
    with pytest.raises(UserError) as error:
        load_spec(path)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("solver", "repeats", "also", "named"),
    [
        ("code", 4, "pass@5", "also: pass@5: no recipe draws as many replies"),
        ("code", 4, "pass@0", "also: pass@0: no recipe draws as many replies"),
        ("code", 4, "pass@k", "also: pass@k: no recipe draws as many replies"),
        ("code", 4, "maj@4", "also: maj@4: no recipe draws as many replies"),
        ("generate", 4, "maj@5", "also: maj@5: no recipe draws as many replies"),
        ("generate", 4, "pass@4", "also: pass@4: no recipe draws as many replies"),
        ("generate", 4, "maj@4", None),
        ("generate", 1, "f1", None),
        ("code", 4, "pass@4", None),
    ],
)
def test_what_is_measured_of_several_replies_needs_so_many(
    tmp_path: Path, solver: str, repeats: int, also: str, named: str | None
) -> None:
    recipe = {"version": 1, "source": "here", "item": "?", "scorer": "x", "temperature": 1.0}
    raw = {key: value for key, value in GOOD.items() if key != "gold"}
    raw |= {"solver": solver, "also": [also], "recipes": {"strict": recipe | {"repeats": repeats}}}
    if solver == "code":
        raw["program"] = {"tests": "{{ test }}"}
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(raw))
    if named is None:
        assert load_spec(path).also == (also,)
        return
    with pytest.raises(UserError) as error:
        load_spec(path)
    assert named in str(error.value)


@pytest.mark.parametrize("language", ["Go", "Rust"])
def test_programs_that_the_sandbox_cannot_run_are_refused(language: str) -> None:
    name = f"humanevalpack_{language.lower()}"
    with pytest.raises(UserError, match=f"{name}: asks for programs in {language}, and the san"):
        load_tasks(name, None, None)


def test_programs_that_the_sandbox_cannot_run_leave_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("QWEN_EVAL_DATA", raising=False)
    (task,) = load_tasks("humanevalpack", None, None)
    assert task.info.recipe == "humanevalpack_python@strict"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5
    for line, name in zip(said, ("js", "java", "go", "cpp", "rust"), strict=True):
        assert line.startswith(f"humanevalpack_{name}@strict: left out of the suite: ")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: toy\nversion: [1\ntitle: x\n", "line 3"),
        ("name: toy\n\tversion: 1\n", "line 2"),
        ("- a\n- b\n", "expected keys and values"),
        ("", "expected keys and values"),
    ],
)
def test_broken_yaml_names_its_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_spec(path)
    assert "task.yaml" in str(error.value)
    assert named in str(error.value)


def test_the_digest_follows_every_byte(tmp_path: Path) -> None:
    first = load_spec(write(tmp_path)).digest
    assert load_spec(write(tmp_path)).digest == first
    assert load_spec(write(tmp_path, "title", "another toy")).digest != first


def test_names_find_tasks_and_recipes() -> None:
    assert {"gsm8k", "humaneval", "mmlu", "tiny_bits_en", "tiny_pairs"} <= set(task_names())
    assert find_task("mmlu")[1] == "strict"
    assert find_task("mmlu@lm-eval")[1] == "lm-eval"


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("mlmu", "did you mean mmlu?"),
        ("../mmlu", "unknown task"),
        ("mmlu@loose", "known: mmlu@strict, mmlu@qwen, mmlu@lm-eval"),
    ],
)
def test_unknown_names_come_with_a_way_out(name: str, named: str) -> None:
    with pytest.raises(UserError) as error:
        find_task(name)
    assert named in str(error.value)


@pytest.mark.parametrize("name", ["mmlu", "gsm8k", "humaneval", "mbpp"])
def test_every_task_has_the_three_recipes_with_a_source(name: str) -> None:
    from qwen_eval.tasks.scorers import CUTS, ITEM_SCORERS, MEASURES, SCORERS

    spec = load_spec(TASKS_DIR / name / "task.yaml")
    assert set(spec.recipes) >= {"strict", "qwen", "lm-eval"}
    assert all(recipe.source for recipe in spec.recipes.values())
    assert set(spec.scorers()) <= {*CUTS, *ITEM_SCORERS, *MEASURES, *SCORERS}
