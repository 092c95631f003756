"""`qwen-eval train tokenizer`, `tokenizer-report` and `models pull qwen-tokenizer` as users call
them."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import random
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from qwen_eval.cli.train_tokenizer import parse_weights
from qwen_eval.errors import UserError
from qwen_eval.model import qwen_tokenizer
from qwen_eval.model.tokenizer import load_tokenizer
from tests.cli.command import PROGRAM, environment, qwen_eval, refused

TRAIN = ("train", "tokenizer")
REPORT = ("train", "tokenizer-report")


def write_texts(folder: Path, order: int = 1) -> Path:
    """Three files of words with few roots, English and Chinese; order -1 names them backwards."""
    folder.mkdir()
    rng = random.Random(2)
    rows = []
    for lang, letters in (("en", "etaoin"), ("zh", "的一是在不了"), ("py", "xy=()")):
        words = ["".join(rng.choices(letters, k=4)) for _ in range(40)]
        lines = (" ".join(rng.choices(words, k=30)) for _ in range(60))
        rows.append([{"text": line, "source": f"{lang}-set/1", "lang": lang} for line in lines])
    for number, file in enumerate(rows[::order]):
        text = "".join(json.dumps(row) + "\n" for row in file[::order])
        (folder / f"{number}.jsonl").write_text(text)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "text")


def test_a_vocabulary_and_its_manifest(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = qwen_eval(
        *TRAIN, "--text", text, "--vocab-size", 400, "--out", out, "--weights", "zh-set=3"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}/qwen.tiktoken: 256 tokens of the base and 144 learnt\n"
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "qwen.tiktoken"]
    lines = (out / "qwen.tiktoken").read_text().splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(400))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sha256"] == hashlib.sha256((out / "qwen.tiktoken").read_bytes()).hexdigest()
    assert (manifest["tokens"], manifest["learnt"], manifest["vocab_size"]) == (400, 144, 608)
    assert manifest["control_tokens"]["<|endoftext|>"] == 400
    assert manifest["settings"]["weights"] == {"zh-set": 3}
    assert manifest["corpus"]["documents"] == 180
    assert load_tokenizer(out).vocab_size == 608


def test_neither_hash_seed_nor_order_of_the_text_changes_a_byte(tmp_path: Path) -> None:
    made = set()
    for order, seed in ((1, "1"), (1, "2"), (-1, "3")):
        folder = write_texts(tmp_path / f"text{seed}", order)
        out = tmp_path / seed
        done = qwen_eval(
            *TRAIN, "--text", folder, "--vocab-size", 420, "--out", out, PYTHONHASHSEED=seed
        )
        assert done.returncode == 0, done.stderr
        made.add((out / "qwen.tiktoken").read_bytes() + (out / "manifest.json").read_bytes())
    assert len(made) == 1


def test_a_base_is_kept_with_its_ranks(text: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    qwen_eval(*TRAIN, "--text", text / "0.jsonl", "--vocab-size", 300, "--out", first)
    base = first / "qwen.tiktoken"
    arguments = ["--text", text, "--vocab-size", 350, "--base", base, "--out", second]
    assert qwen_eval(*TRAIN, *arguments).returncode == 0
    lines = (second / "qwen.tiktoken").read_text().splitlines()
    assert lines[:300] == base.read_text().splitlines()
    assert len(lines) == 350
    manifest = json.loads((second / "manifest.json").read_text())
    assert manifest["base"] == {
        "sha256": hashlib.sha256(base.read_bytes()).hexdigest(),
        "tokens": 300,
        "numbers_dropped": 0,
    }


def test_numbers_of_a_base_are_dropped_on_demand(text: Path, tmp_path: Path) -> None:
    tokens = [*(bytes([i]) for i in range(256)), b"20", b"et", b"2023", b"eta"]
    tokens.insert(257, b"23")
    lines = (f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(tokens))
    (tmp_path / "base.tiktoken").write_text("".join(lines))
    arguments = ["--text", text, "--base", tmp_path / "base.tiktoken", "--vocab-size", 262]
    done = qwen_eval(*TRAIN, *arguments, "--drop-numbers", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ranks = [line.split()[0] for line in (tmp_path / "out/qwen.tiktoken").read_text().splitlines()]
    assert [base64.b64decode(t) for t in ranks[256:258]] == [b"et", b"eta"]
    assert len(ranks) == 262


def test_text_that_teaches_less_than_was_asked(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("abab abab")
    out = tmp_path / "out"
    done = qwen_eval(*TRAIN, "--text", tmp_path / "few.txt", "--vocab-size", 999, "--out", out)
    assert done.returncode == 0
    assert "no further pair occurs twice: 258 tokens, not 999" in done.stderr


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--vocab-size", "256"], "--vocab-size 256: the base alone has 256 tokens; ask more"),
        (["--text", "/nowhere"], "--text /nowhere: no such file or folder"),
        (["--text", "{tmp}/empty.txt"], "--text: no text in it; nothing can be learnt"),
        (["--text", "{tmp}/void"], "void: no .jsonl, .jsonl.gz, .txt in this folder"),
        (["--text", "{tmp}/binary.txt"], "binary.txt, byte 1: not UTF-8"),
        (["--base", "{tmp}/bad.tiktoken"], "bad.tiktoken, line 3: expected a base64 token"),
        (["--base", "/nowhere"], "--base /nowhere: cannot be read"),
        (["--out", "/proc/nowhere"], "--out /proc/nowhere: cannot be made"),
        (["--out", "{tmp}/taken"], "taken: holds a qwen.tiktoken already; name another folder"),
        (["--limit-mb", "0"], "--limit-mb 0.0: give more than 0"),
        (["--weights", "zh"], "--weights zh: give SOURCE=NUMBER"),
        (["--weights", "zh=2"], "--weights zh: no document has this source; there are en-set,"),
        (["--drop-numbers"], "--drop-numbers: the 256 bytes hold no numbers; give a --base"),
    ],
)
def test_what_a_user_gets_wrong(text: Path, tmp_path: Path, changed: list[str], named: str) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\x7f\xe4\x00\xff" * 9)
    (tmp_path / "bad.tiktoken").write_text("AA== 0\nAQ== 1\nAg== 7\n")
    (tmp_path / "void").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "qwen.tiktoken").write_text("kept")
    given = {"--text": str(text), "--vocab-size": "300", "--out": str(tmp_path / "out")}
    words = [word.replace("{tmp}", str(tmp_path)) for word in changed]
    given[words[0]] = words[1] if len(words) > 1 else ""
    line = refused(qwen_eval(*TRAIN, *(w for pair in given.items() for w in pair if w)))
    assert named in line
    assert (tmp_path / "taken" / "qwen.tiktoken").read_text() == "kept"


def test_a_full_disk_leaves_no_half_a_vocabulary(text: Path, tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk.
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from qwen_eval.cli.main import main\n"
        "main()\n"
    )
    words = ["--text", str(text), "--vocab-size", "300", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [PROGRAM[0], "-c", code, *TRAIN, *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot write" in refused(done)
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_leaves_nothing_half_done(tmp_path: Path) -> None:
    rng = random.Random(4)
    words = ["".join(rng.choices("abcdefghij", k=9)) for _ in range(400_000)]
    (tmp_path / "large.txt").write_text("\n".join(words))
    out = tmp_path / "out"
    command = ["--text", str(tmp_path / "large.txt"), "--vocab-size", "99999", "--out", str(out)]
    with subprocess.Popen(
        [*PROGRAM, *TRAIN, *command],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("learning"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr == "qwen-eval: interrupted\n"
    assert list(out.iterdir()) == []


def test_weights_are_whole_numbers() -> None:
    assert parse_weights("peps=2, d2l-ai=3") == {"peps": 2, "d2l-ai": 3}
    for wrong in ("a=0", "a=1.5", "a=-1", "=2", "", "a=2,"):
        with pytest.raises(UserError, match="a whole number from 1 on"):
            parse_weights(wrong)


# --- report ---------------------------------------------------------------------------------------


def test_a_report(text: Path, tmp_path: Path) -> None:
    for size in (256 + 8, 512):
        out = tmp_path / str(size)
        qwen_eval(*TRAIN, "--text", text, "--vocab-size", size, "--out", out)
    vocabularies = ["--vocab", tmp_path / "264" / "qwen.tiktoken", "--vocab", f"big={tmp_path}/512"]
    done = qwen_eval(*REPORT, *vocabularies, "--text", text, "--reference", "big", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["reference"] == "big"
    assert list(found["groups"]) == ["en", "py", "zh"]
    tokenizer = load_tokenizer(tmp_path / "264")
    rows = [json.loads(line) for f in text.iterdir() for line in f.read_text().splitlines()]
    texts = [row["text"] for row in rows if row["lang"] == "zh"]
    zh = found["groups"]["zh"]
    tokens, size = sum(len(tokenizer.encode(t)) for t in texts), len("".join(texts).encode())
    assert (zh["tokens"]["264"], zh["bytes"], zh["documents"]) == (tokens, size, 60)
    assert zh["tokens_per_byte"]["264"] == tokens / size
    assert zh["ratio"] == {"264": tokens / zh["tokens"]["big"], "big": 1.0}
    assert zh["ratio"]["264"] > 1.5
    table = qwen_eval(*REPORT, *vocabularies, "--text", text, "--by", "source").stdout
    assert "source" in table
    assert f"{zh['tokens_per_byte']['264']:.4f}" in table
    assert "ratio: tokens for one token of 264" in table


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--vocab", "/nowhere.tiktoken"], "--vocab /nowhere.tiktoken: cannot be read"),
        (["--vocab", "qwen"], "run `qwen-eval models pull qwen-tokenizer` once"),
        (["--vocab", "{tmp}/a.json"], "a.json: not a tokenizer"),
        (["--vocab", "{tmp}/a.json", "--vocab", "{tmp}/a.json"], "a second a; write NAME="),
        (["--vocab", "{tmp}/a.json", "--reference", "b"], "--reference b: choose one of a"),
        (["--vocab", "{tmp}/a.json", "--by", "file"], "--by file: choose one of lang, source"),
    ],
)
def test_a_report_that_cannot_be_made(
    text: Path, tmp_path: Path, changed: list[str], named: str
) -> None:
    (tmp_path / "a.json").write_text("{}")
    words = [word.replace("{tmp}", str(tmp_path)) for word in changed]
    done = qwen_eval(*REPORT, *words, "--text", text, QWEN_EVAL_CACHE=str(tmp_path / "cache"))
    assert named in refused(done)


# --- Qwen's own vocabulary ------------------------------------------------------------------------


def test_qwens_vocabulary_is_pulled_once(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    file = tmp_path / "cache" / "qwen-tokenizer" / "qwen.tiktoken"
    for said in ("ready: ", "already here: "):
        done = qwen_eval("models", "pull", "qwen-tokenizer", QWEN_EVAL_CACHE=cache)
        assert (done.returncode, done.stderr) == (0, f"{said}{file}\n")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == qwen_tokenizer.SHA256
    assert load_tokenizer(file.parent).vocab_size == 151_851
    file.write_text("damaged")
    done = qwen_eval("models", "pull", "qwen-tokenizer", QWEN_EVAL_CACHE=cache)
    assert done.stderr == f"ready: {file}\n"
    line = refused(qwen_eval("models", "pull", "qwen-tokenizer", QWEN_EVAL_CACHE="/proc/x"))
    assert "QWEN_EVAL_CACHE names another place" in line


@pytest.mark.parametrize("whole", [True, False])
def test_without_the_package_its_wheel_is_fetched_and_checked(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.metadata.distribution("dashscope").locate_file(qwen_tokenizer.MEMBER)
    data = Path(str(found)).read_bytes()

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[-1] == qwen_tokenizer.PACKAGE
        with zipfile.ZipFile(Path(command[-2]) / "dashscope.whl", "w") as wheel:
            wheel.writestr(qwen_tokenizer.MEMBER, data if whole else data[:-1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("QWEN_EVAL_CACHE", str(tmp_path))
    monkeypatch.setattr(qwen_tokenizer, "_installed", lambda: None)
    monkeypatch.setattr(subprocess, "run", download)
    if whole:
        assert qwen_tokenizer.pull().read_bytes() == data
    else:
        with pytest.raises(UserError, match="not the file that is known; not used"):
            qwen_tokenizer.pull()
        assert not qwen_tokenizer.path().exists()
