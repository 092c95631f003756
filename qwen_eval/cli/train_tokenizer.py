"""`qwen-eval train tokenizer` and `tokenizer-report`: learn a vocabulary, and measure some."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import check_choice, say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.documents import Document
    from qwen_eval.train.tokenizer.compression import Group
    from qwen_eval.train.tokenizer.merges import Merge
    from qwen_eval.train.tokenizer.pieces import PieceCounts

MEGABYTE = 1_000_000
TEXT_HELP = "A .jsonl, .jsonl.gz (column text) or .txt, or a folder of them; may be repeated."


@dataclass(frozen=True)
class TokenizerOptions:
    """The options of `train tokenizer`."""

    text: Annotated[list[Path], typer.Option(help=TEXT_HELP)]
    vocab_size: Annotated[
        int, typer.Option(help="Tokens in the end; the 208 control tokens come on top.")
    ]
    out: Annotated[Path, typer.Option(help="Folder for qwen.tiktoken and manifest.json.")]
    base: Annotated[
        Path | None,
        typer.Option(help="A tiktoken file whose tokens are kept; else the 256 bytes."),
    ] = None
    drop_numbers: Annotated[
        bool,
        typer.Option("--drop-numbers", help="Leave out the base's numbers, as Qwen did."),
    ] = False
    limit_mb: Annotated[
        float | None, typer.Option(help="About so many MB of text, from the start of every file.")
    ] = None
    weights: Annotated[
        str | None, typer.Option(help="SOURCE=2,SOURCE=3: a document counts so many times.")
    ] = None


@command_from(TokenizerOptions)
def command(options: TokenizerOptions) -> None:
    """Learn byte-pair merges from text, on top of a base vocabulary."""
    from qwen_eval.train.tokenizer import vocabulary

    base, described = _base(options)
    if options.vocab_size <= len(base):
        raise UserError(
            f"--vocab-size {options.vocab_size}: the base alone has {len(base)} tokens; ask more"
        )
    weights = parse_weights(options.weights)
    read = _read(options.text, options.limit_mb)
    vocabulary.open_folder(options.out)
    counted, merges = _learn(read, weights, base, options.vocab_size)
    tokens = vocabulary.extended(base, merges)
    history = {
        "base": described,
        "learnt": len(merges),
        "least_pair_count": merges[-1].count if merges else None,
        "settings": {
            "vocab_size": options.vocab_size,
            "limit_mb": options.limit_mb,
            "weights": weights,
        },
        "corpus": {name: value for name, value in vars(counted).items() if name != "counts"},
    }
    path = vocabulary.write_vocabulary(options.out, tokens, history)
    if len(tokens) < options.vocab_size:
        say(f"no further pair occurs twice: {len(tokens)} tokens, not {options.vocab_size}")
    print(f"{path}: {len(base)} tokens of the base and {len(merges)} learnt")


def _base(options: TokenizerOptions) -> tuple[list[bytes], dict[str, Any]]:
    from qwen_eval.fileio import file_hash
    from qwen_eval.train.tokenizer import vocabulary

    if options.base is None:
        if options.drop_numbers:
            raise UserError("--drop-numbers: the 256 bytes hold no numbers; give a --base")
        return list(vocabulary.BYTES), {"sha256": None, "tokens": 256}
    say(f"checking {options.base}")
    tokens = vocabulary.read_base(options.base)
    kept = vocabulary.without_numbers(tokens) if options.drop_numbers else tokens
    dropped = len(tokens) - len(kept)
    digest = file_hash(options.base)
    return kept, {"sha256": digest, "tokens": len(kept), "numbers_dropped": dropped}


def _learn(
    read: Iterable[Document], weights: Mapping[str, int], base: list[bytes], size: int
) -> tuple[PieceCounts, list[Merge]]:
    from qwen_eval.cli.progress import progress
    from qwen_eval.train.tokenizer.layout import lay_out
    from qwen_eval.train.tokenizer.merges import learn
    from qwen_eval.train.tokenizer.pieces import count_pieces

    counted = count_pieces(read, weights)
    say(
        f"{counted.bytes / MEGABYTE:.1f} MB in {counted.documents} documents: "
        f"{len(counted.counts)} distinct pieces"
    )
    if counted.forgotten:
        say(f"rare pieces were forgotten: counts are up to {counted.undercount} too low")
    pieces = lay_out(counted.counts, base)
    counted.counts.clear()
    merges = []
    say(f"learning {size - len(base)} merges")
    with progress(size - len(base)) as bar:
        for merge in learn(pieces, size):
            merges.append(merge)
            bar.advance()
    return counted, merges


def _read(paths: list[Path], limit_mb: float | None) -> Iterator[Document]:
    """The documents; mistakes in the options are raised at once, progress is shown as they go."""
    from qwen_eval.train.documents import documents, size, text_files

    if limit_mb is not None and not limit_mb > 0:
        raise UserError(f"--limit-mb {limit_mb}: give more than 0")
    files = text_files(paths)
    limit = None if limit_mb is None else int(limit_mb * MEGABYTE)
    whole = sum(map(size, files))
    say(f"reading {len(files)} files (progress in MB)")
    return _watched(documents(files, limit), min(whole, limit or whole) // MEGABYTE)


def _watched(documents: Iterator[Document], megabytes: int) -> Iterator[Document]:
    from qwen_eval.cli.progress import progress

    read = 0
    with progress(megabytes) as bar:
        for document in documents:
            yield document
            read += len(document.text.encode("utf-8", "surrogatepass"))
            while bar.done < min(read // MEGABYTE, megabytes):
                bar.advance()


def parse_weights(text: str | None) -> dict[str, int]:
    """`peps=2,d2l-ai=3` → weights by source. Raises UserError for what is no whole number."""
    weights: dict[str, int] = {}
    for part in text.split(",") if text is not None else ():
        name, equals, number = part.strip().rpartition("=")
        if not (name and equals and number.isascii() and number.isdigit() and int(number)):
            raise UserError(f"--weights {part}: give SOURCE=NUMBER, a whole number from 1 on")
        weights[name] = int(number)
    return weights


@dataclass(frozen=True)
class ReportOptions:
    """The options of `train tokenizer-report`."""

    vocab: Annotated[
        list[str],
        typer.Option(
            help="A tiktoken file, tokenizer.json or folder, NAME=PATH to name it, or qwen for "
            "Qwen's own; may be repeated."
        ),
    ]
    text: Annotated[list[Path], typer.Option(help=TEXT_HELP)]
    reference: Annotated[
        str | None, typer.Option(help="The vocabulary whose tokens are 1; else the first.")
    ] = None
    by: Annotated[str, typer.Option(help="lang or source.")] = "lang"
    limit_mb: Annotated[
        float | None, typer.Option(help="About so many MB of text, from the start of every file.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(ReportOptions)
def report(options: ReportOptions) -> None:
    """Tokens per byte of several vocabularies, and their ratio to one of them: lower is better."""
    from qwen_eval.train.tokenizer.compression import counter, measure

    check_choice("--by", options.by, ("lang", "source"))
    paths = _vocabularies(options.vocab)
    reference = options.reference or next(iter(paths))
    check_choice("--reference", reference, list(paths))
    read = _read(options.text, options.limit_mb)
    counters = {name: counter(path) for name, path in paths.items()}
    groups = measure(read, counters, lambda document: getattr(document, options.by) or "?")
    _print_table(options, groups, reference)
    if options.as_json:
        print(json.dumps(_as_dict(groups, reference), ensure_ascii=False))


def _vocabularies(words: list[str]) -> dict[str, Path]:
    from qwen_eval.model import qwen_tokenizer

    paths: dict[str, Path] = {}
    for word in words:
        name, equals, place = word.partition("=")
        path = Path(place if equals else word)
        if not equals:
            # `qwen.tiktoken` and `tokenizer.json` are named by the folder they lie in.
            common = path.name in ("qwen.tiktoken", "tokenizer.json")
            name = path.absolute().parent.name if common else path.stem
        if word == "qwen":
            path = qwen_tokenizer.require()
        if name in paths:
            raise UserError(f"--vocab {word}: a second {name}; write NAME={path}")
        paths[name] = path
    return paths


def _as_dict(groups: dict[str, Group], reference: str) -> dict[str, Any]:
    return {
        "reference": reference,
        "groups": {
            key: {
                "documents": group.documents,
                "bytes": group.bytes,
                "tokens": group.tokens,
                "tokens_per_byte": {name: group.per_byte(name) for name in group.tokens},
                "ratio": {name: group.ratio(name, reference) for name in group.tokens},
            }
            for key, group in groups.items()
        },
    }


def _print_table(options: ReportOptions, groups: dict[str, Group], reference: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    from qwen_eval.cli.table import ResultsTable, Row
    from qwen_eval.reports.plain import one_line

    names = list(next(iter(groups.values())).tokens)
    shown = {name: escape(one_line(name)) for name in names}
    columns = ("\nMB", *(f"{shown[name]}\ntok/byte" for name in names))
    columns += tuple(f"{shown[name]}\nratio" for name in names if name != reference)
    rows = [
        Row(
            escape(one_line(key)),
            (
                f"{group.bytes / MEGABYTE:.2f}",
                *(f"{group.per_byte(name):.4f}" for name in names),
                *(f"{group.ratio(name, reference):.3f}" for name in names if name != reference),
            ),
        )
        for key, group in groups.items()
    ]
    console = Console(stderr=options.as_json)
    console.print(ResultsTable(tuple(rows), columns, options.by))
    console.print(f"ratio: tokens for one token of {one_line(reference)}", markup=False)
