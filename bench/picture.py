"""A command's output as it looks in a terminal, as an SVG for the README.

python -m bench.picture docs/run.svg qwen-eval run --tasks mmlu --model mock:oracle
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 84


def main() -> None:
    """Run the command and draw what it printed on standard output."""
    path, *command = sys.argv[1:]
    environment = os.environ | {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    console = Console(record=True, width=WIDTH, file=sys.stderr, force_terminal=True)
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(done.stdout))
    Path(path).write_text(
        console.export_svg(title="qwen-eval", unique_id="run"), encoding="utf-8", newline="\n"
    )


if __name__ == "__main__":
    main()
