"""`qwen-eval rescore`: what it leaves out and says so, and programs judged two at a time."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest

from qwen_eval.cli import rescore
from qwen_eval.sandbox import preflight
from qwen_eval.types import JudgeRequest, Response
from tests.cli.command import qwen_eval, refused


def run(tasks: str, model: str, out: Path, limit: int) -> Path:
    done = qwen_eval("run", "--tasks", tasks, "--model", model, "--limit", limit, "--out", out)
    assert done.returncode in (0, 4), done.stderr
    return out


class FakeSandbox:
    """Passes every program but one, and knows how many it had at a time."""

    isolation = "none"

    def __init__(self, broken: str) -> None:
        self.broken, self.active, self.most = broken, 0, 0
        self._lock = threading.Lock()

    def judge(self, request: JudgeRequest) -> Response:
        with self._lock:
            self.active += 1
            self.most = max(self.most, self.active)
        time.sleep(0.05)
        with self._lock:
            self.active -= 1
        if request.entry_point == self.broken:
            return Response(error="sandbox: gone", finish_reason="error")
        return Response(text="fine", passed=True, finish_reason="judged")

    def close(self) -> None:
        pass


def test_programs_are_judged_two_at_a_time_and_a_broken_judge_blames_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run("humaneval", "mock:oracle", tmp_path / "run", 4)
    broken = json.loads((out / "samples.jsonl").read_text().splitlines()[0])["target"]
    sandbox = FakeSandbox(broken)
    monkeypatch.setattr(preflight, "open_sandbox", lambda **_: sandbox)
    rescore.command(run=out, data=None, show=5, accept_no_sandbox=False, as_json=True)
    text = capsys.readouterr().out
    task = json.loads(text.splitlines()[-1])["tasks"]["humaneval@strict"]
    for scorer in ("indentation", "whole"):
        row = task["scorers"][scorer]
        assert (row["n"], row["errors"], row["estimate"]) == (3, 1, 1.0)
        assert re.search(rf"{scorer} .*, 1 left out: they could not be judged", text)
    assert sandbox.most == 2


def test_samples_that_failed_and_a_run_that_stopped_are_told(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"contains": "Q: A ", "error": "no"}\n{"text": "The answer is 7."}\n')
    out = run("gsm8k", f"mock:{script}", tmp_path / "run", 30)
    records = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    failed = sum(record["status"] == "error" for record in records)
    assert 0 < failed < 30
    done = qwen_eval("rescore", out, "--json")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first == (
        f"gsm8k@strict: {30 - failed} stored replies; {failed} samples left out, they ended in an "
        "error"
    ) + ("" if (out / "DONE").exists() else "; UNFINISHED run, 30 of 30 samples")
    assert json.loads(done.stdout.splitlines()[-1])["tasks"]["gsm8k@strict"]["failed"] == failed

    (out / "DONE").unlink(missing_ok=True)
    (out / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records[:12]))
    text = qwen_eval("rescore", out).stdout
    assert "UNFINISHED run, 12 of 30 samples" in text


def test_several_replies_are_read_again_all_of_them(tmp_path: Path) -> None:
    """Eight replies each: a script's, of which the last one stays."""
    rules = [{"contains": "Q: A ", "text": ["The answer is 5.", "hm", "The answer is 7", "05"]}]
    script = tmp_path / "script.jsonl"
    script.write_text("".join(json.dumps(rule) + "\n" for rule in [*rules, {"text": "none"}]))
    out = run("gsm8k@maj8", f"mock:{script}", tmp_path / "run", 12)
    records = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [len(record["responses"]) for record in records] == [8] * 12
    done = qwen_eval("rescore", out, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "gsm8k@maj8: 12 stored samples of 8 replies"
    found = json.loads(done.stdout.splitlines()[-1])["tasks"]["gsm8k@maj8"]["scorers"]
    metrics = json.loads((out / "metrics.json").read_text())["tasks"]["gsm8k@maj8"]
    assert found["number"]["estimate"] == metrics["overall"]["estimate"]
    assert set(metrics["others"]) == {"maj@8"}
    # 05 is a number to all readers but one, to whom it is no answer.
    assert sum(record["status"] == "scored" for record in records) > 0
    assert found["number"]["no_answer"] == found["qwen_last_digits"]["no_answer"] < 12


def test_programs_in_conversations_are_not_read_as_continued_prompts(tmp_path: Path) -> None:
    out = run("humaneval@chat", "mock:oracle", tmp_path / "run", 3)
    done = qwen_eval("rescore", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["tasks"]["humaneval@chat"]["scorers"]
    assert {name: row["estimate"] for name, row in found.items()} == {
        "program": 1.0,
        "qwen_chat": 1.0,
    }


def test_no_reply_at_all_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"error": "no"}\n')
    out = run("gsm8k", f"mock:{script}", tmp_path / "run", 3)
    line = refused(qwen_eval("rescore", out))
    assert line == f"{out}: no stored replies to read, all 3 samples ended in an error"
    (out / "samples.jsonl").write_text("")
    assert refused(qwen_eval("rescore", out)) == f"{out}: no stored replies to read"


def test_long_work_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run("gsm8k", "mock:oracle", tmp_path / "run", 5)
    monkeypatch.setattr("qwen_eval.cli.progress.LINE_SECONDS", 0.0)
    rescore.command(run=out, data=None, show=5, accept_no_sandbox=False, as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == [f"{i}/20" for i in range(1, 21)]


def test_options_are_weighed_again_as_another_recipe_weighs_them(
    tmp_path: Path, mirror: Path
) -> None:
    scores = {}
    for recipe in ("strict", "lm-eval"):
        out = tmp_path / recipe
        done = qwen_eval(
            *("run", "--tasks", f"arc_easy@{recipe}", "--data", mirror, "--limit", 24),
            *("--out", out, "--json"),
        )
        task = json.loads(done.stdout.splitlines()[-1])["tasks"][f"arc_easy@{recipe}"]
        scores[recipe] = task["overall"]["estimate"]
    done = qwen_eval("rescore", tmp_path / "strict", "--data", mirror, "--json")
    found = json.loads(done.stdout.splitlines()[-1])["tasks"]["arc_easy@strict"]["scorers"]
    assert found["argmax_per_character"]["estimate"] == scores["strict"]
    assert found["argmax"]["estimate"] == scores["lm-eval"]
    assert set(found) == {
        *("argmax", "argmax_per_character", "argmax_per_byte", "argmax_per_token")
    }


def test_disagreements_are_written_for_a_person_to_judge(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text(json.dumps({"text": "It costs $20,800 in all. The answer is 20,800"}) + "\n")
    out = run("gsm8k", f"mock:{script}", tmp_path / "run", 6)
    audit = tmp_path / "audit.jsonl"
    done = qwen_eval("rescore", out, "--audit", audit, "--json")
    task = json.loads(done.stdout.splitlines()[-1])["tasks"]["gsm8k@strict"]
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["id"] for line in lines] == task["disagree"]
    assert f"{len(lines)} disagreements written" in done.stdout
    for line in lines:  # a gold of 800, which the released reading makes of 20,800
        assert line["scorers"]["qwen_last_digits"] == {"answer": "800", "value": 1.0}
        assert line["replies"] == ["It costs $20,800 in all. The answer is 20,800"]
    assert "cannot write" in refused(qwen_eval("rescore", out, "--audit", tmp_path))
