"""The filters of every stage, as functions of one unit: kept or dropped, with a reason.

Each reads one file or shard and writes one; they run in any process. Knows nothing of the order of
the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..documents import Document, Raw, identity, read_raw
from .clean import clean, declared_encoding, decode
from .decontaminate import KnownTests
from .dedup import Method
from .language import identify
from .mixture import held_out
from .pace import counted
from .pack import open_encoder, tokenise
from .recipe import Languages, Scorer, Source
from .rules import Bound, broken_rule
from .shards import load_array, read_shard
from .stage import Folder, Sorter

# None keeps a document; else (filter, reason).
Verdict = tuple[str, str] | None
Filter = Callable[[Document], Verdict]


def as_document(raw: Raw, source: str, lang: str) -> tuple[Document, str | None]:
    """A document of what a file held, and why it is none: `empty`, `binary`, `no main text`."""
    document = Document(identity(raw.origin), "", source, lang or raw.lang, {"origin": raw.origin})
    text: str | None
    if isinstance(raw.content, bytes):
        text = decode(raw.content, declared_encoding(raw.content) if raw.is_html else "")
        if text is None:
            return document, "binary"
    else:
        text = raw.content
        if "\x00" in text:
            return document, "binary"
    if not text.strip():
        return document, "empty"
    if raw.is_html:
        from .html import main_text

        text = main_text(text)
    document.text = clean(text)
    if not document.text:
        return document, "no main text" if raw.is_html else "empty"
    return document, None


def language_filter(languages: Languages) -> Filter:
    """Names a document's language where it is not known, and keeps those of the recipe.

    A language that the source or the row declares is believed.
    """

    def check(document: Document) -> Verdict:
        if document.lang:
            return None
        lang, probability = identify(document.text)
        document.lang = lang
        document.metadata["lang_probability"] = round(probability, 4)
        if lang not in languages.keep:
            return "language", lang
        return None if probability >= languages.min else ("language", "unsure")

    return check


def rule_filter(rules: Mapping[str, Mapping[str, Bound]], sources: Mapping[str, Source]) -> Filter:
    """The rules of a document's source, else of its language; none if there are none."""

    def check(document: Document) -> Verdict:
        named = sources[document.source].rules or document.lang
        broken = broken_rule(document.text, rules.get(named, {}))
        return ("rules", broken) if broken else None

    return check


def score_filter(scorer: Scorer, folder: Path) -> Filter:
    """A learned scorer with a bound on its score."""
    from .scorers import load_scorer

    loaded = load_scorer(folder / scorer.file)
    low, high = scorer.bound.min, scorer.bound.max

    def check(document: Document) -> Verdict:
        score = loaded.score(document.text)
        document.metadata[scorer.name] = round(score, 4)
        if low is not None and score < low:
            return scorer.name, f"score < {low:g}"
        if high is not None and score > high:
            return scorer.name, f"score > {high:g}"
        return None

    return check


def decontamination_filter(tests: KnownTests) -> Filter:
    """Instructions that share an n-gram with a test set."""

    def check(document: Document) -> Verdict:
        found = tests.found_in(document.text)
        return None if found is None else ("tests", f"{tests.n}-gram of {found}")

    return check


def read_unit(
    path: Path,
    folder: Folder,
    unit: str,
    name: str,
    source: str,
    of: Source,
    filters: Sequence[Any],
) -> None:
    """Files to documents. filters: Languages or KnownTests, whichever apply."""
    checks = [
        language_filter(one) if isinstance(one, Languages) else decontamination_filter(one)
        for one in filters
    ]
    with Sorter(folder, unit) as sorter:
        for raw in read_raw(path, name, of.format, counted):
            document, reason = as_document(raw, source, of.lang)
            if reason is not None:
                sorter.drop(document, "read", reason)
            else:
                _sort(document, checks, sorter)


def filter_unit(
    shard: Path,
    folder: Folder,
    unit: str,
    rules: Mapping[str, Mapping[str, Bound]],
    sources: Mapping[str, Source],
    scorers: Sequence[Scorer],
    data: Path,
) -> None:
    """Rules first, then learned scorers in the recipe's order."""
    checks = [rule_filter(rules, sources), *(score_filter(one, data) for one in scorers)]
    with Sorter(folder, unit) as sorter:
        for document in read_shard(shard):
            _sort(document, checks, sorter)


def sign_unit(shard: Path, stem: Path, method: Method) -> None:
    """What is to be known of a shard to find repeats."""
    method.sign(stem, read_shard(shard))


def drop_unit(
    shard: Path, folder: Folder, unit: str, number: int, drops: Path, method: Method
) -> None:
    """Leave out the rows of a shard that a table of DROP_TYPE names."""
    table = load_array(drops)
    mine = table[table["shard"] == number]
    kept_instead = dict(zip(mine["row"].tolist(), mine["kept"].tolist(), strict=True))
    with Sorter(folder, unit) as sorter:
        for row, document in enumerate(read_shard(shard)):
            if row in kept_instead:
                sorter.drop(document, method.name, method.reason, f"of {kept_instead[row]:016x}")
            else:
                sorter.keep(document)


def hold_out_unit(shard: Path, folder: Folder, unit: str, share: float, seed: int) -> None:
    """A share of a shard's documents goes to `dropped`: it is not trained on, but measured on."""
    import numpy as np

    with Sorter(folder, unit) as sorter:
        for document in read_shard(shard):
            if held_out(np.array([int(document.id, 16)], np.uint64), share, seed)[0]:
                sorter.drop(document, "heldout", "kept for measuring")
            else:
                sorter.keep(document)


def tokenise_unit(shard: Path, stem: Path, sources: Sequence[str], tokenizer: str) -> None:
    """The tokens of a shard. sources: their names, whose places are the sources' numbers."""
    numbers = {name: number for number, name in enumerate(sources)}
    texts = ((int(one.id, 16), one.text, numbers[one.source]) for one in read_shard(shard))
    tokenise(stem, texts, open_encoder(tokenizer))


def _sort(document: Document, checks: Sequence[Filter], sorter: Sorter) -> None:
    for check in checks:
        verdict = check(document)
        if verdict is not None:
            sorter.drop(document, *verdict)
            return
    sorter.keep(document)
