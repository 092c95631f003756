"""`train data`, `train data-review` and `train data-scorer` as a user meets them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.cli.command import qwen_eval, refused
from tests.cli.thin_mirror import thinned
from tests.train.toy_corpus import RECIPE, rows, write_corpus

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    write_corpus(folder)
    return folder


def test_a_corpus_is_made_shown_and_reviewed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["train", "data", data / "recipe.yaml", "--data", data, "--out", out]
    done = qwen_eval(*command, "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["packed"]["sequences"] > 100
    assert said["stages"]["4-filter"]["dropped"] == [["rules", "words < 30", "en", 1]]
    # The questions of the tasks are not here: that is said.
    assert "SAMPLE" in done.stderr
    assert re.search(r"1-read: \d\.\d/\d\.\d MB  \d+\.\d MB/s  done", done.stderr)
    assert "gsm8k (sample)" in said["packed"]["tests"]
    assert "words &lt; 30" in (out / "page.html").read_text()

    again = qwen_eval(*command)
    assert again.returncode == 0
    assert "exact: same text" in again.stdout

    assert qwen_eval("train", "data-review", out, "--samples", 5).returncode == 0
    sheet = out / "review" / "2-exact-exact.csv"
    with sheet.open(newline="") as file:
        lines = list(csv.DictReader(file))
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(line | {"verdict": "right"} for line in lines)
    judged = qwen_eval("train", "data-review", sheet)
    assert judged.stdout.splitlines() == [
        "exact, dropped: 5 of 5 right, 100.0% [56.6, 100.0]",
        "exact, kept: 5 of 5 right, 100.0% [56.6, 100.0]",
    ]


def test_a_scorer_is_trained_and_used(data: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "data"
    write_corpus(corpus)
    scorer = corpus / "quality.npy"
    rows(
        tmp_path / "good.jsonl",
        [{"text": f"The river is wide and slow here {i}"} for i in range(50)],
    )
    rows(tmp_path / "bad.jsonl", [{"body": f"click here to buy now {i}"} for i in range(50)])
    done = qwen_eval(
        *("train", "data-scorer", "--positive", tmp_path / "good.jsonl"),
        *("--negative", tmp_path / "bad.jsonl", "--negative-key", "body", "--out", scorer),
    )
    assert done.returncode == 0, done.stderr
    assert "held out, good: " in done.stdout
    recipe = RECIPE + "scorers:\n  - {name: quality, file: quality.npy, bound: {min: 0.99999}}\n"
    (corpus / "recipe.yaml").write_text(recipe)
    out = tmp_path / "out"
    made = qwen_eval("train", "data", corpus / "recipe.yaml", "--data", corpus, "--out", out)
    assert made.returncode == 0, made.stderr
    assert "quality: score < 0.99999" in made.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("colour: red\n", "line 15: colour: unknown key"),
        ("exact: [1\n", "not YAML"),
        ("seed: -1\n", "seed: "),
        ("instructions: {en: {files: [x]}}\n", "en is both a source and an instruction set"),
        ("rules: {x: {shine: {min: 1}}}\n", "no measure shine"),
        ("rules: {}\n", "rules words are not in the recipe"),
        ("languages: {keep: []}\n", "languages.keep"),
        ("fuzzy: {bands: 0}\n", "fuzzy.bands"),
        ("pack: {length: 0}\n", "pack.length"),
        ("pack: {tokenizer: /none}\n", "/none: neither tokenizer.json"),
        ("sources: {a: {files: [none.jsonl]}}\nrules: {}\n", "no file is"),
        ("decontaminate: {against: [none.jsonl]}\n", "decontaminate: against: no file is"),
        ("scorers: [{name: a, file: none.npy, bound: {min: 1}}]\n", "scorers: no file is"),
    ],
)
def test_a_wrong_recipe_is_one_line(data: Path, tmp_path: Path, change: str, said: str) -> None:
    keys = {line.split(":")[0] for line in change.splitlines() if not line.startswith(" ")}
    whole = yaml.safe_load(RECIPE) if "not YAML" not in said else {}
    if keys <= set(whole):
        whole |= yaml.safe_load(change)
        text = yaml.safe_dump(whole)
    else:
        text = RECIPE + change
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    out = tmp_path / "out"
    line = refused(qwen_eval("train", "data", path, "--data", data, "--out", out, "--workers", 1))
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.yaml", "--out", "o"], "nothing.yaml: cannot be read"),
        (["nothing", "--out", "o"], "recipes of ours: code, tiny"),
        (["tiny", "--out", "o", "--data", "none"], "--data none: no such folder"),
        (["tiny", "--out", "o", "--data", "."], "no file is"),
        (["tiny", "--out", "o", "--data", ".", "--memory", "much"], "--memory much"),
        (["tiny"], "--out"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in refused(qwen_eval("train", "data", *arguments, cwd=tmp_path))


@pytest.mark.slow
def test_the_recipe_of_ours_runs_on_the_mirror(mirror: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", thinned(mirror, tmp_path / "data")
    done = qwen_eval("train", "data", "tiny", "--data", data, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    packed = said["packed"]["sources"]
    # Made of a test set: gone. The others stay.
    assert packed["gaokao"]["documents"] < 20
    assert packed["dolly"]["documents"] > 950
    kept = said["stages"]["4-filter"]["kept"]
    read = said["stages"]["1-read"]["kept"]
    assert sum(kept.values()) / sum(read.values()) > 0.95
