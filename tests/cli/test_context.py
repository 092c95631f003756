"""`qwen-eval context`: a small model, made-up books, and everything a user can get wrong."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qwen_eval.cli.context import chosen_lengths
from qwen_eval.context_table import ROWS
from qwen_eval.errors import UserError
from qwen_eval.results import read_info
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint

ALL = "base,ntk,ntk-logn,all,yarn"
WORDS = (
    "the",
    "house",
    "was",
    "old",
    "and",
    "nobody",
    "knew",
    "who",
    "had",
    "built",
    "it",
    "there",
)


def book(seed: int, characters: int) -> str:
    """Words without end, cut to a length."""
    draw = random.Random(seed)
    text = " ".join(draw.choices(WORDS, k=characters))
    return text[:characters]


def command(out: Path, *words: object) -> list[object]:
    """On the model and the books of `home`, in which it is run."""
    given = ("--model", "model", "--data", "data", "--tasks", "longppl_en", "--dtype", "float32")
    return ["context", *given, "--lengths", "1024,2048", "--rows", ALL, "--out", out, *words]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes that was trained on 1,024 of them, three books, and the finished table. The
    last book does not fill the longer context."""
    folder: Path = tmp_path_factory.mktemp("context")
    toy_checkpoint(folder / "model", trained_length=1024, max_length=1024)
    (folder / "data" / "longdoc").mkdir(parents=True)
    with gzip.open(folder / "data" / "longdoc" / "en.jsonl.gz", "wt", encoding="utf-8") as file:
        for seed, characters in ((1, 2500), (2, 4200), (3, 1500)):
            file.write(json.dumps({"text": book(seed, characters)}) + "\n")
    done = qwen_eval(*command(folder / "table", "--json"), cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout, encoding="utf-8")
    return folder


def samples(run: Path, recipe: str) -> dict[str, dict[str, float]]:
    """The values of a recipe's samples as the file has them, by id."""
    lines = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        raw["id"]: raw["values"]
        for raw in map(json.loads, lines)
        if raw["task"] == recipe and raw["status"] == "scored"
    }


@pytest.mark.slow
def test_the_table_is_what_the_samples_add_up_to(home: Path) -> None:
    table = json.loads((home / "table" / "table.json").read_text(encoding="utf-8"))
    (block,) = table["blocks"]
    assert (block["texts"], block["short"], block["failed"]) == (2, 1, 0)
    text = (home / "table" / "table.txt").read_text(encoding="utf-8")
    assert "1 of 3 documents are shorter than 2,048 tokens and left out" in text
    for row in ROWS:
        long = samples(home / "table" / row.name, "longppl_en@2048")
        (line,) = (
            one for one in text.splitlines() if re.match(rf"{re.escape(row.label)} +\d", one)
        )
        for length, shown in zip(("1024", "2048"), re.findall(r"\d+\.\d\d", line), strict=True):
            read = samples(home / "table" / row.name, f"longppl_en@{length}")
            kept = [read[key] for key in long]
            assert len(kept) == 2
            nats = math.fsum(one["nats_per_token"] * one["tokens"] for one in kept)
            perplexity = math.exp(nats / math.fsum(one["tokens"] for one in kept))
            cell = block["cells"][row.name][length]
            assert cell["perplexity"]["estimate"] == pytest.approx(perplexity)
            assert shown == f"{perplexity:.2f}"


@pytest.mark.slow
def test_every_row_is_a_run_with_its_switches(home: Path) -> None:
    for row in ROWS:
        info = read_info(home / "table" / row.name)
        said = {key: info.settings[key] for key in ("ntk", "logn", "window", "max_length")}
        wanted = {"ntk": row.ntk, "logn": row.logn, "window": row.window, "max_length": 2048}
        assert said == wanted
        assert info.settings.get("yarn") == (2.0 if row.yarn else None)
        assert (info.model["detail"]["ntk"] != "off") is row.ntk
        assert any(info.model["detail"]["windows"]) is row.window
    compared = qwen_eval("compare", "table/base", "table/all", cwd=home)
    assert compared.returncode == 0, compared.stderr


@pytest.mark.slow
def test_within_the_trained_length_ntk_and_logn_change_nothing(home: Path) -> None:
    base = samples(home / "table" / "base", "longppl_en@1024")
    for row in ("ntk", "ntk-logn"):
        assert samples(home / "table" / row, "longppl_en@1024") == base
        beyond = samples(home / "table" / row, "longppl_en@2048")
        assert beyond != samples(home / "table" / "base", "longppl_en@2048")


@pytest.mark.slow
def test_json_is_the_last_line_and_the_picture_is_xml(home: Path) -> None:
    said = json.loads((home / "stdout").read_text(encoding="utf-8").splitlines()[-1])
    kept = json.loads((home / "table" / "table.json").read_text(encoding="utf-8"))
    assert said == kept | {"out": str(home / "table")}
    ElementTree.parse(home / "table" / "table.svg")


@pytest.mark.slow
def test_the_same_command_on_a_finished_table_only_draws_it_again(home: Path) -> None:
    before = {name: (home / "table" / name).read_bytes() for name in ("table.json", "table.svg")}
    runs = {
        path: path.stat().st_mtime_ns
        for row in ROWS
        for path in (home / "table" / row.name).iterdir()
    }
    for name in before:
        (home / "table" / name).unlink()
    done = qwen_eval(*command(home / "table", "--paper"), cwd=home)
    assert done.returncode == 0, done.stderr
    assert "run directory" not in done.stderr
    assert "Qwen 7B (2K)" in done.stdout
    done = qwen_eval(*command(home / "table"), cwd=home)
    assert {name: (home / "table" / name).read_bytes() for name in before} == before
    assert {path: path.stat().st_mtime_ns for path in runs} == runs


@pytest.mark.slow
def test_a_torn_row_is_taken_up_again_to_the_same_table(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    shutil.copytree(home / "table", out)
    torn = out / "ntk-logn" / "samples.jsonl"
    lines = torn.read_text(encoding="utf-8").splitlines(keepends=True)
    torn.write_text("".join(lines[:2]) + lines[2][:40], encoding="utf-8")
    for gone in (out / "ntk-logn" / "DONE", out / "table.json"):
        gone.unlink()
    done = qwen_eval(*command(out), cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run directory") == 1
    assert "ntk-logn, 2 samples kept" in done.stderr
    assert (out / "table.json").read_bytes() == (home / "table" / "table.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--limit", "1"], "table/base: holds another run: tasks.longppl_en@1024.prompts_digest"),
        (["--lengths", "1024"], "table/base: holds another run: settings.max_length is 2048 there"),
        (["--dtype", "bfloat16"], "table/base: holds another run: model.dtype is 'float32' there"),
        (["--model", "other"], "table/base: holds another run: model.fingerprint is"),
    ],
)
def test_the_folder_of_another_table_is_refused(home: Path, words: list[str], named: str) -> None:
    if not (home / "other").exists():
        toy_checkpoint(home / "other", seed=1, trained_length=1024, max_length=1024)
    line = refused(qwen_eval(*command(home / "table", *words), cwd=home))
    assert named in line
    assert (home / "table" / "base" / "DONE").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--rows", "base,best"], "--rows base,best: choose of base, ntk, ntk-logn, all, yarn"),
        (["--rows", "ntk"], "--rows ntk: choose of base, ntk, ntk-logn, all, yarn; base is always"),
        (
            ["--lengths", "1000"],
            "--lengths 1000: there is no recipe for '1000'; choose of 1024,2048",
        ),
        (["--lengths", "1024,,"], "--lengths 1024,,: there is no recipe for ''"),
        (["--tasks", "tiny_bits_en"], "--tasks tiny_bits_en: has no recipes by length"),
        (
            ["--tasks", "longppl_en@1024"],
            "--tasks longppl_en@1024: name no recipe, --lengths choose",
        ),
        (["--tasks", "longpl_en"], "--tasks longpl_en: no task or suite; did you mean longppl_en"),
        (["--tasks", ","], "--tasks: name at least one"),
        (["--model", "mock:oracle"], "--model mock:oracle: its context cannot be switched"),
        (["--model", "nowhere"], "--model nowhere: neither a name that is known"),
        (["--dtype", "fp8"], "--dtype fp8: choose one of auto"),
        (["--language", "fr"], "--language fr: choose one of en, zh"),
        (["--limit", "0"], "--limit"),
        (["--out", "full"], "--out full: holds notes.md, so it is no table's; choose another"),
        (["--out", "full/notes.md"], "--out full/notes.md: not a folder"),
        ([], "--tasks longppl_en: no data; name a mirror with --data"),
    ],
)
def test_wrong_words(words: list[str], named: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.md").write_text("mine")
    done = qwen_eval("context", "--out", "new", *words, cwd=tmp_path)
    assert named in refused(done)
    assert not (tmp_path / "new").exists()


def test_a_model_that_yarn_stretches_has_no_ntk_row(tmp_path: Path) -> None:
    from qwen_eval.model.yarn import Yarn

    (tmp_path / "data" / "longdoc").mkdir(parents=True)
    with gzip.open(tmp_path / "data" / "longdoc" / "en.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": book(1, 100)}) + "\n")
    toy_checkpoint(tmp_path / "model", trained_length=1024, max_length=2048, yarn=Yarn(2.0, 1024))
    done = qwen_eval(*command(tmp_path / "new"), cwd=tmp_path)
    assert "--rows ntk: --ntk: config.json stretches RoPE by YaRN already" in refused(done)


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        (1024, [1024, 2048, 4096, 8192]),
        (256, [1024, 2048, 4096, 8192]),
        (2048, [2048, 4096, 8192, 16384]),
        (3000, [2048, 4096, 8192, 16384]),
        (8192, [8192, 16384, 32768]),
        (131072, [32768]),
    ],
)
def test_columns_go_from_the_trained_length_to_eight_times_it(
    trained: int, expected: list[int]
) -> None:
    known = [1024, 2048, 4096, 8192, 16384, 32768]
    assert chosen_lengths(None, known, trained) == expected
    assert chosen_lengths(" 4096, 1024,4096", known, trained) == [1024, 4096]
    with pytest.raises(UserError, match="choose of 1024,2048,4096,8192,16384,32768"):
        chosen_lengths("65536", known, trained)


@pytest.mark.slow
def test_keys_hidden_in_a_text_make_the_same_table_of_answers(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    tasks = ("--tasks", "passkey_en", "--limit", "4", "--rows", "base,all", "--lengths", "1024")
    done = qwen_eval(*command(out, *tasks), cwd=home)
    assert done.returncode == 0, done.stderr
    (block,) = json.loads((out / "table.json").read_text(encoding="utf-8"))["blocks"]
    right = [one["accuracy"] for one in samples(out / "base", "passkey_en@1024").values()]
    assert block["cells"]["base"]["1024"]["value"]["estimate"] == pytest.approx(sum(right) / 4)
    depths = list(block["depths"]["base"]["1024"])
    assert depths == sorted(depths, key=int)
    ElementTree.parse(out / "table.svg")


@pytest.mark.slow
def test_an_interrupted_table_goes_on_to_the_same_one(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    words = [*PROGRAM, *map(str, command(out))]
    started = subprocess.Popen(
        words,
        cwd=home,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    journal = out / "ntk" / "samples.jsonl"
    deadline = time.monotonic() + 240
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert "samples kept; the same command goes on" in said
    assert said.endswith("qwen-eval: interrupted\n")
    assert (out / "base" / "DONE").exists()
    assert not (out / "table.json").exists()
    done = qwen_eval(*command(out), cwd=home)
    assert done.returncode == 0, done.stderr
    assert "base" not in re.findall(r"run directory \S+/(\S+)", done.stderr)
    assert (out / "table.json").read_bytes() == (home / "table" / "table.json").read_bytes()
