"""What the runner asks of a model, and the names under which models can be had.

A backend takes requests and gives back responses in any order, as they finish. It knows nothing
of tasks, scores or run directories. Backends are imported only when named.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash
from qwen_eval.types import ModelRequest, Response


@dataclass(frozen=True)
class BackendInfo:
    """What provenance records of a model: enough to tell two models apart.

    `fingerprint` is a hash of the weights (or the nearest thing a server offers; empty where
    nothing can be had, and then nothing may be cached under it). `max_length` in tokens.
    `concurrency`: how many requests the backend wants to have at hand at a time.
    """

    name: str
    fingerprint: str = ""
    tokenizer: str = ""
    dtype: str = ""
    device: str = ""
    max_length: int = 0
    concurrency: int = 256
    detail: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """A model behind a queue."""

    def submit(self, request: ModelRequest) -> int:
        """Queue a request; returns its id, unique within this backend."""
        ...

    def step(self) -> list[tuple[int, Response]]:
        """Work for a short while and return what finished, [] if nothing did.

        An item that fails comes back as a Response with `error` set. Raises only when the
        backend as a whole cannot go on (InfrastructureError).
        """
        ...

    def info(self) -> BackendInfo:
        """Describe the model; the same for the whole life of the backend."""
        ...

    def close(self) -> None:
        """Release memory, processes and connections. May be called twice."""
        ...


@dataclass(frozen=True)
class BackendOptions:
    """The user's wishes; a backend refuses those it cannot honour (`refuse_flags`).

    `batch`: sequences computed at a time (None: the backend chooses). `dtype`: auto, float32 or
    bfloat16. `device`: auto, cpu or cuda. `max_length`: tokens of context, None for the model's
    own. `kv_memory`: bytes for keys and values. `batch_invariant`: the same bits whatever the
    batch. `context` holds the switches of the context that were given, by name (--ntk,
    --ntk-chunks, --logn, --window, --window-sizes, --yarn); one left alone is absent. `lengths`:
    tokens of the sequences that are going to be asked, where they are known: those that the
    context takes must fit the memory for keys and values.
    """

    batch: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    max_length: int | None = None
    seed: int = 0
    kv_memory: int | None = None
    batch_invariant: bool = True
    context: Mapping[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()


def refuse_flags(options: BackendOptions, kind: str, *ignored: str) -> None:
    """Raises UserError for a flag that would change nothing: the result would be another's.

    Only our own engine can be switched; `ignored` names what else the backend cannot honour.
    """
    for name, value in options.context.items():
        raise UserError(
            f"{_flag(name, value)}: {kind} models cannot be switched; use a folder (native backend)"
        )
    for name in ("kv_memory", "batch_invariant", *ignored):
        if (value := getattr(options, name)) != getattr(BackendOptions, name):
            raise UserError(f"{_flag(name, value)}: changes nothing of {kind} models; leave it out")


def _flag(name: str, value: object) -> str:
    """As it was written on the command line."""
    words = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{words}" if value else f"--no-{words}"
    return f"--{words} {value:g}" if isinstance(value, float) else f"--{words} {value}"


def choose_device(wish: str) -> str:
    """`auto` is cuda where torch sees a GPU, else cpu; of several GPUs each of torchrun's local
    processes takes its own. Raises UserError for cuda without one."""
    import torch

    gpu = torch.cuda.is_available()
    if wish == "cuda" and not gpu:
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    device = ("cuda" if gpu else "cpu") if wish == "auto" else wish
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return device


def model_name(target: str) -> str:
    """The last part of a folder or hub id; a folder's own name where it is written as `.`."""
    path = Path(target)
    return (path.resolve() if path.is_dir() else path).name


# What makes a checkpoint what it is: weights, settings, tokenizer, chat template. An index of
# shards says nothing new, and other files of a folder (notes, logs, results) may come and go.
_PARTS = (
    "*.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "*.tiktoken",
    "*.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.*",
)


def folder_fingerprint(folder: Path) -> str:
    """A hash of the names and bytes of all parts of a model folder; empty if it has no weights."""
    files = sorted({path for part in _PARTS for path in folder.glob(part) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in files):
        return ""
    lines = [f"{path.name} {file_hash(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


REGISTRY = {
    "native": "qwen_eval.backends.native:NativeBackend",
    "mock": "qwen_eval.backends.mock:MockBackend",
    "hf": "qwen_eval.backends.hf:HfBackend",
    "openai": "qwen_eval.backends.openai:OpenAiBackend",
    "lm_eval": "qwen_eval.backends.lm_eval:LmEvalBackend",
}


def open_backend(kind: str, target: str, options: BackendOptions) -> Backend:
    """Import the backend `kind` and open `target` with it (a folder, an id, a URL: its own words).

    Raises UserError when the kind is unknown or an optional package is missing.
    """
    if kind not in REGISTRY:
        raise UserError(f"--model {kind}:…: unknown backend; known: {', '.join(REGISTRY)}")
    module, _, name = REGISTRY[kind].partition(":")
    opener = getattr(importlib.import_module(module), name)
    backend: Backend = opener.open(target, options)
    return backend
