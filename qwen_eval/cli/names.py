"""What may be named by --model, and which backend serves it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from qwen_eval.backends.base import REGISTRY
from qwen_eval.errors import UserError
from qwen_eval.model import bundled

DEFAULT = "tiny"


@dataclass(frozen=True)
class ModelName:
    """A resolved name: backend and its target; `note` is what the user should be told."""

    backend: str
    target: str
    note: str = ""


def resolve(name: str) -> ModelName:
    """`smollm2`, a folder, a hub id, or `backend:target`. Raises UserError with the way out."""
    if name in bundled.NOTES:
        return ModelName("native", str(bundled.folder(name)), bundled.NOTES[name])
    if name == "smollm2":
        from qwen_eval.model import smollm2

        return ModelName("native", str(smollm2.require()), smollm2.NOTE)
    kind, colon, target = name.partition(":")
    if colon and kind in REGISTRY:
        if not target:
            raise UserError(f"--model {name}: nothing after the colon")
        return ModelName(kind, target)
    if _exists(Path(name)):
        return _folder(Path(name), name)
    if colon:
        known = ", ".join(f"{backend}:…" for backend in REGISTRY)
        raise UserError(f"--model {name}: unknown backend {kind}; known: {known}")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _folder(_download(name), name)
    raise UserError(
        f"--model {name}: neither a name that is known (`qwen-eval models` lists them) nor a folder"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than any file's
        return False


def _folder(folder: Path, name: str) -> ModelName:
    from qwen_eval.model.config import family_of

    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"--model {name}: no config.json in it; is this a model folder?")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a JSON object")
    if family_of(raw) is not None:
        return ModelName("native", str(folder))
    architecture = ", ".join(map(str, raw.get("architectures") or ["unnamed"]))
    return ModelName("hf", str(folder), f"architecture {architecture}: served by transformers")


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.tiktoken", "*.model", "merges.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the library raises many unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--model {name}: no such folder, and the hub does not have it or does not answer "
            f"({reason})"
        ) from error
