"""What a hostile program prints, raises and returns reaches no terminal and no file as it is."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from tests.cli.command import qwen_eval

HOSTILE = (
    r"'\x1b[31mred\x1b]0;owned\x07 \x00 \x9b2J \ud800 \u202e ]]> <script>alert(1)</script>' * 2000"
)
BODIES = {
    "raises it": f"    raise ValueError({HOSTILE})\n",
    "returns it": f"    return {HOSTILE}\n",
    "prints it": f"    print({HOSTILE}.encode('utf-8', 'replace'))\n    return 0\n",
    "prints 20 MB": "    import os\n    while True: os.write(1, b'\\x1b[2J' * 4096)\n",
    "names it": (
        f"    name = {HOSTILE}.replace('\\0', '').replace('\\ud800', '')\n"
        "    raise type(name, (Exception,), {})\n"
    ),
}


def harmless(text: str) -> bool:
    """No control character but line ends and tabs, no lone surrogate, no change of direction."""
    return not [
        letter
        for letter in text
        if unicodedata.category(letter) in ("Cc", "Cs", "Cf") and letter not in "\n\t\r"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", BODIES)
def test_hostile_output_is_harmless_everywhere(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text(json.dumps({"text": BODIES[kind]}) + "\n")
    rules = tmp_path / "gate.yaml"
    rules.write_text("rules:\n  - {task: humaneval, type: floor, minimum: 0.5}\n")
    out = tmp_path / "run"
    done = [
        qwen_eval("run", "--tasks", "humaneval", "--model", f"mock:{script}", "--limit", 2,
                  "--out", out),
        qwen_eval("report", out, "--out", tmp_path / "report.html"),
        qwen_eval("rescore", out, "--show", 5),
        qwen_eval("gate", "--rules", rules, "--baseline", out, "--candidate", out,
                  "--junit", tmp_path / "gate.xml"),
    ]  # fmt: skip
    assert [one.returncode for one in done] == [0, 0, 0, 1], [one.stderr for one in done]
    for one in done:
        assert harmless(one.stdout)
        assert harmless(one.stderr)
        assert "<script>alert" not in one.stdout
    for path in (*out.iterdir(), tmp_path / "report.html", tmp_path / "gate.xml"):
        text = path.read_text(encoding="utf-8")
        assert harmless(text), path.name
        if path.suffix in (".html", ".xml"):
            assert "<script>alert" not in text
    verdicts = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(verdicts) == 2
    for sample in verdicts:
        assert sample["values"] == {"pass@1": 0.0}
        told = sample["detail"]["verdict"]
        assert told
        assert told.isprintable()
        assert len(told) < 400
