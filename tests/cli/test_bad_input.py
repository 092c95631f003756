"""Whatever a user gets wrong is one line that names it, exit 2, and nothing is lost."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from qwen_eval.results import read_samples
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint

ORACLE = ["--model", "mock:oracle"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["--tasks", "mmul", *ORACLE],
            "--tasks mmul: no task or suite; did you mean mmlu or cmmlu?",
        ),
        (["--tasks", "mmlu@best", *ORACLE], "--tasks mmlu@best: unknown recipe"),
        (["--tasks", ",", *ORACLE], "--tasks: name at least one"),
        (["--tasks", "mmlu,mmlu", *ORACLE], "named twice"),
        (["--tasks", "mmlu", "--model", "gpt5"], "--model gpt5: neither a name that is known"),
        (["--tasks", "mmlu", "--model", "vllm:x"], "--model vllm:x: unknown backend vllm"),
        (["--tasks", "mmlu", "--model", "mock:"], "--model mock:: nothing after the colon"),
        (["--tasks", "mmlu", "--model", "a/b"], "--model a/b: no such folder, and the hub"),
        (["--tasks", "mmlu", "--model", "m" * 300], "neither a name that is known"),
        (["--tasks", "mmlu", "--data", "/nowhere", *ORACLE], "--data /nowhere: no such folder"),
        (["--tasks", "mmlu", "--dtype", "fp8", *ORACLE], "--dtype fp8: choose one of auto"),
        (["--tasks", "mmlu", "--device", "tpu", *ORACLE], "--device tpu: choose one of auto"),
        (["--tasks", "mmlu", "--limit", "0", *ORACLE], "--limit 0: give a number from 1 on"),
        (["--tasks", "mmlu", "--limit", "many", *ORACLE], "--limit many: give a number from 1 on"),
        (["--tasks", "mmlu", "--limit", "mmlu=0", *ORACLE], "--limit mmlu=0: give a number from"),
        (["--tasks", "mmlu", "--limit", "mmlu=3,4", *ORACLE], "--limit mmlu=3,4: give a number"),
        (["--tasks", "mmlu", "--limit", "mmul=3", *ORACLE], "mmul is not run; --tasks has mmlu@s"),
        (["--tasks", "mmlu", "--kv-memory", "lots", *ORACLE], "--kv-memory lots: give a number"),
        (["--tasks", "mmlu", "--kv-memory", "4", *ORACLE], "--kv-memory 4: give a number and a"),
        (["--tasks", "mmlu", "--kv-memory", "4GiB", *ORACLE], "changes nothing of mock: models"),
        (["--tasks", "mmlu", "--no-batch-invariant", *ORACLE], "--no-batch-invariant: changes"),
        (["--tasks", "mmlu", "--colour", *ORACLE], "--colour"),
        ([*ORACLE], "--tasks"),
    ],
)
def test_wrong_words(arguments: list[str], named: str, tmp_path: Path) -> None:
    line = refused(qwen_eval("run", *arguments, cwd=tmp_path))
    assert named in line


def small_mirror(source: Path, folder: Path) -> Path:
    """Twelve MMLU questions of one subject with their exemplars."""
    (folder / "mmlu").mkdir(parents=True)
    for split, count in (("test", 12), ("dev", 5)):
        with gzip.open(source / "mmlu" / f"{split}.jsonl.gz", "rt") as file:
            rows = [row for line in file if (row := json.loads(line))["subject"] == "anatomy"]
        text = "".join(json.dumps(row) + "\n" for row in rows[:count])
        (folder / "mmlu" / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_too_little_memory_for_keys_and_values(mirror: Path, tmp_path: Path) -> None:
    """For a single page, and for one sequence."""
    model = toy_checkpoint(tmp_path / "model", max_length=8192, trained_length=8192)
    asked = ["run", "--tasks", "mmlu", "--model", model, "--data", mirror, "--limit", "3"]
    line = refused(qwen_eval(*asked, "--kv-memory", "1KiB", "--out", tmp_path / "none"))
    assert "1,024 bytes" in line
    assert "--kv-memory" in line
    done = qwen_eval(*asked, "--kv-memory", "600KiB", "--out", tmp_path / "few")
    assert "--kv-memory" in refused(done, 4), "every sample failed, and the reason says what to do"


def test_a_corrupt_line_in_the_mirror(mirror: Path, tmp_path: Path) -> None:
    data = small_mirror(mirror, tmp_path / "data")
    path = data / "mmlu" / "test.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines()
    lines[6] = lines[6][:40]
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    line = refused(qwen_eval("run", "--tasks", "mmlu", *ORACLE, "--data", data))
    assert f"{path}, line 7: not JSON" in line


def test_a_row_of_another_shape(mirror: Path, tmp_path: Path) -> None:
    data = small_mirror(mirror, tmp_path / "data")
    path = data / "mmlu" / "test.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "x", "subject": "anatomy", "answer": 0}\n'))
    line = refused(qwen_eval("run", "--tasks", "mmlu", *ORACLE, "--data", data))
    assert "mmlu@strict, sample" in line
    assert "choices" in line


def test_a_mirror_without_the_task(mirror: Path, tmp_path: Path) -> None:
    data = small_mirror(mirror, tmp_path / "data")
    line = refused(qwen_eval("run", "--tasks", "mmlu,gsm8k", *ORACLE, "--data", data))
    assert f"--data {data}: gsm8k/test.jsonl.gz is missing" in line


def test_a_broken_task_file(tmp_path: Path) -> None:
    # A copy of the package with one task broken: tasks belong to the installation.
    import qwen_eval as package

    root = Path(package.__file__).parent
    copy = tmp_path / "qwen_eval"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "tasks" / "mmlu" / "task.yaml"
    path.write_text(path.read_text().replace("solver: choice", "solver: [choice"))
    done = qwen_eval("run", "--tasks", "mmlu", *ORACLE, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    line = refused(done)
    assert "tasks/mmlu/task.yaml, line " in line


def test_a_folder_with_another_run(mirror: Path, tmp_path: Path) -> None:
    data, out = small_mirror(mirror, tmp_path / "data"), tmp_path / "run"
    command = ["run", "--tasks", "mmlu", "--data", data, "--out", out]
    assert qwen_eval(*command, *ORACLE).returncode == 0
    before = (out / "samples.jsonl").read_bytes()
    line = refused(qwen_eval(*command, "--model", "mock:random"))
    assert f"--out {out}: holds another run: model." in line
    assert (out / "samples.jsonl").read_bytes() == before
    assert (out / "DONE").exists()


def test_a_full_disk_keeps_what_was_done(mirror: Path, tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk: the write fails in the same place.
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from qwen_eval.cli.main import main\n"
        "sys.argv[0] = 'qwen-eval'\n"
        "main()\n"
    )
    command = ["run", "--tasks", "mmlu", "--limit", "500", "--data", str(mirror)]
    command += [*ORACLE, "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [PROGRAM[0], "-c", code, *command],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    line = refused(done)
    assert "cannot write" in line
    assert "finished samples are kept" in line
    kept = len(read_samples(tmp_path / "run"))
    assert 0 < kept < 500
    again = qwen_eval(*command)
    assert again.returncode == 0
    assert f"{kept} samples kept" in again.stderr


def test_ctrl_c_keeps_what_was_done(mirror: Path, smollm2: Path, tmp_path: Path) -> None:
    data, out = small_mirror(mirror, tmp_path / "data"), tmp_path / "run"
    command = ["run", "--tasks", "mmlu", "--model", str(smollm2), "--data", str(data)]
    command += ["--out", str(out), "--batch", "1"]
    with subprocess.Popen(
        [*PROGRAM, *command],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A test runner started in the background ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        deadline = time.monotonic() + 120
        samples = out / "samples.jsonl"
        while time.monotonic() < deadline and not (samples.exists() and samples.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    kept = len(read_samples(out))
    said = re.search(r"stopped: (\d+) of 12 samples kept; the same command goes on", stderr)
    # The signal may come between a sample's line and its count.
    assert said
    assert 0 < kept - int(said[1]) + 1 <= 2
    assert 0 < kept < 12
    again = qwen_eval(*command)
    assert again.returncode == 0, again.stderr
    assert f"{kept} samples kept" in again.stderr


# --- model folders ------------------------------------------------------------------------------


@pytest.fixture
def broken(smollm2: Path, tmp_path: Path) -> Path:
    """A copy of SmolLM2 whose weights may be damaged."""
    folder = tmp_path / "model"
    shutil.copytree(smollm2, folder, ignore=shutil.ignore_patterns("*.gguf"))
    return folder


def refused_model(folder: Path, *more: str) -> str:
    return refused(
        qwen_eval("run", "--tasks", "humaneval", "--limit", "1", "--model", folder, *more)
    )


def test_no_weights(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    assert "safetensors" in refused_model(broken)


def test_truncated_weights(broken: Path) -> None:
    path = broken / "model.safetensors"
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    assert "model.safetensors" in refused_model(broken)


def test_a_tensor_of_the_wrong_shape(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 1535}))
    line = refused_model(broken)
    assert re.search(r"tensor \S+ has shape \[.*1536.*\], config.json asks for \[.*1535.*\]", line)


def test_a_config_that_is_no_json(broken: Path) -> None:
    (broken / "config.json").write_text("{")
    assert "config.json: not JSON" in refused_model(broken)


def test_more_context_than_the_model_has(smollm2: Path) -> None:
    line = refused_model(smollm2, "--max-length", "9000")
    assert "--max-length 9000: this model's context is 8192 tokens" in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--window-sizes", "0"], "--window-sizes 0: give tokens from 1 on or the word full"),
        (["--ntk-chunks"], "--ntk-chunks: says when NTK acts, and NTK is off; add --ntk"),
        (["--yarn", "4", "--ntk"], "--yarn 4: --ntk stretches RoPE as well; leave one out"),
        (["--yarn", "0.5"], "--yarn 0.5: give a factor from 1 on"),
    ],
)
def test_switches_of_the_context_that_say_nothing(
    flags: list[str], said: str, tmp_path: Path
) -> None:
    assert said in refused_model(toy_checkpoint(tmp_path / "model"), *flags)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "no config.json in it; is this a model folder?" in refused_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "named"),
    [("[]", "config.json: expected a JSON object"), ('{"architectures": [3]}', "architecture 3")],
)
def test_a_config_of_another_shape(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "config.json").write_text(content)
    done = qwen_eval("run", "--tasks", "humaneval", "--limit", "1", "--model", tmp_path)
    refused(done)
    assert named in done.stderr


# --- terminals ----------------------------------------------------------------------------------


def test_a_terminal_without_dashes_still_shows_the_table(tmp_path: Path) -> None:
    command = ["run", "--tasks", "mmlu", "--limit", "5", *ORACLE, "--out", tmp_path / "run"]
    done = qwen_eval(*command, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "mmlu@strict" in done.stdout


def test_a_reader_that_has_left_is_no_error() -> None:
    with subprocess.Popen(
        [*PROGRAM, "tasks", "--json"], env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0


def test_no_command_shows_help_and_no_empty_line() -> None:
    done = qwen_eval()
    assert "Usage" in done.stdout + done.stderr
    assert not done.stderr.endswith("qwen-eval: \n")
