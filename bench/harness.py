"""What the harness itself costs: all of MMLU with a model that answers at once.

    python -m bench.harness --data ../shared/data

A child process runs `qwen-eval run --tasks mmlu --model mock:random` from nothing to DONE: start,
reading, rendering 14,042 prompts, scoring, journal and metrics are all in. Prints the median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Time and peak memory of whole runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    seconds, mebibytes = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "qwen_eval", "run", "--tasks", "mmlu"]
            command += ["--model", "mock:random", "--data", str(options.data)]
            began = time.perf_counter()
            process = subprocess.Popen([*command, "--out", folder], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            seconds.append(time.perf_counter() - began)
            mebibytes.append(usage.ru_maxrss / 1024)
    print(f"all of MMLU, mock:random, {options.repeats} runs")
    middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
    print(f"  time   median {middle:.2f} s, {least:.2f} – {most:.2f}")
    print(f"  memory peak   {max(mebibytes):.0f} MiB")


if __name__ == "__main__":
    main()
