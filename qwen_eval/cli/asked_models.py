"""A model of any backend as `train.replies` asks it: opened at the first question that is not yet
answered, with progress on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.progress import progress
from qwen_eval.cli.setup import DEVICES, DTYPES, check_choice, open_model

if TYPE_CHECKING:
    from qwen_eval.backends.base import Backend, BackendOptions
    from qwen_eval.types import GenerateRequest, Response


@dataclass(frozen=True, kw_only=True)
class AskingOptions:
    """Options of every command of `train` that asks models."""

    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences computed at a time.")] = None
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0

    def asked_model(self, name: str) -> AskedModel:
        """A model by its name as in `run`. Raises UserError for one that is not there."""
        from qwen_eval.backends.base import BackendOptions

        check_choice("--dtype", self.dtype, DTYPES)
        check_choice("--device", self.device, DEVICES)
        options = BackendOptions(
            batch=self.batch, dtype=self.dtype, device=self.device, seed=self.seed
        )
        return AskedModel(name, options)


@dataclass
class AskedModel:
    """See train.replies.Model."""

    name: str
    options: BackendOptions
    _backend: Backend | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # A name that is wrong is said before anybody is asked.
        assert self.identity

    @cached_property
    def identity(self) -> str:
        """The name with a hash of the weights, or of the script; known before it is opened."""
        from qwen_eval.backends.base import folder_fingerprint
        from qwen_eval.cli.names import resolve
        from qwen_eval.fileio import file_hash

        resolved = resolve(self.name)
        target = Path(resolved.target)
        if resolved.backend in ("native", "hf") and target.is_dir():
            return f"{self.name} {folder_fingerprint(target)} {self.options.dtype}"
        if resolved.backend == "mock" and target.is_file():
            return f"{self.name} {file_hash(target)[:16]}"
        return f"{resolved.backend}:{resolved.target} {self.options.dtype}"

    def ask(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Response]]:
        """As many at a time as the backend wants to have at hand."""
        if self._backend is None:
            self._backend = open_model(self.name, self.options)
        backend = self._backend
        most = max(backend.info().concurrency, 1)
        places: dict[int, int] = {}
        begun = 0
        with progress(len(requests), unit="replies") as bar:
            while begun < len(requests) or places:
                while begun < len(requests) and len(places) < most:
                    places[backend.submit(requests[begun])] = begun
                    begun += 1
                for number, response in backend.step():
                    bar.advance()
                    yield places.pop(number), response

    def close(self) -> None:
        """Give back its memory; the next question opens it again."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None
