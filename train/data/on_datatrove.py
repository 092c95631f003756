"""Our filters as steps of a datatrove pipeline, for its executors (local, Slurm, Ray).

Needs the package datatrove, which is no dependency of this project but of its tests. A step drops
with "filter: reason", which datatrove counts and hands to an exclusion writer:

    languages = FilterStep("language", partial(language_filter, recipe.languages))
    rules = FilterStep("rules", partial(rule_filter, recipe.rules, recipe.sources))
    pipeline = [JsonlReader(...), CleanStep(), languages, rules, JsonlWriter(...)]

A document's source and language are read from and kept in its metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters.base import BaseFormatter

from ..documents import Document, identity
from .clean import clean
from .steps import Filter


class CleanStep(BaseFormatter):  # type: ignore[misc]
    """NFC, repaired encoding, no control characters."""

    name = "clean text"

    def format(self, text: str) -> str:
        """One text, cleaned."""
        return clean(text)


class FilterStep(BaseFilter):  # type: ignore[misc]
    """One filter of ours. `make` builds it in the process that runs it, so it must be picklable."""

    def __init__(self, name: str, make: Callable[[], Filter], exclusion_writer: Any = None) -> None:
        super().__init__(exclusion_writer)
        self.name = name
        self.make = make
        self._check: Filter | None = None

    def filter(self, doc: Any) -> bool | tuple[bool, str]:
        """True keeps a document of datatrove; else False and why."""
        if self._check is None:
            self._check = self.make()
        ours = Document(
            identity(doc.id),
            doc.text,
            str(doc.metadata.get("source", "")),
            str(doc.metadata.get("lang", "")),
            doc.metadata,
        )
        verdict = self._check(ours)
        doc.metadata["lang"] = ours.lang
        return True if verdict is None else (False, ": ".join(verdict))
