"""What the harness itself costs: all of MMLU with a model that answers at once, and its reports.

    python -m bench.harness --data ../shared/data

Child processes run `qwen-eval run --tasks mmlu --model mock:random` from nothing to DONE (start,
reading, rendering 14,042 prompts, scoring, journal and metrics are all in), then `qwen-eval report`
over one such run and over two. Prints medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    """Time and peak memory of whole commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [f"{folder}/{i}" for i in range(options.repeats)]
        asked = ["run", "--tasks", "mmlu", "--data", str(options.data), "--model", "mock:random"]
        page = ["--out", f"{folder}/report.html"]
        tell("all of MMLU, mock:random", options, lambda i: [*asked, "--out", runs[i]])
        tell("a report of one such run", options, lambda i: ["report", runs[i], *page])
        other = [*asked, "--seed", "1", "--out", f"{folder}/other"]
        tell("one more run", argparse.Namespace(repeats=1), lambda _: other)
        tell("a report of two", options, lambda i: ["report", runs[i], other[-1], *page])
        for path in sorted(Path(folder).glob("*.html")):
            print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


def tell(name: str, options: argparse.Namespace, command: Callable[[int], list[str]]) -> None:
    """Run a command `repeats` times and print what it took."""
    found = [timed(command(i)) for i in range(options.repeats)]
    seconds = sorted(each[0] for each in found)
    middle = statistics.median(seconds)
    print(f"{name}, {options.repeats} times")
    print(f"  time   median {middle:.2f} s, {seconds[0]:.2f} – {seconds[-1]:.2f}")
    print(f"  memory peak   {max(each[1] for each in found):.0f} MiB", flush=True)


def timed(words: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a `qwen-eval` command as a process of its own."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "qwen_eval", *words],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - began, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
