"""`qwen-eval context`: the paper's Table 3 for any model, how far each stretching carries.

Every row is a run directory of its own, made as `qwen-eval run` makes it, so each can be resumed,
compared, reported and gated by itself; the table is drawn from the four.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.asking import Meter, ask
from qwen_eval.cli.options import command_from
from qwen_eval.cli.progress import Progress, progress
from qwen_eval.cli.run import RunOptions, context_switches, open_backend, run_info
from qwen_eval.cli.setup import (
    DEVICES,
    DTYPES,
    LANGUAGES,
    LoadedTask,
    check_choice,
    load_tasks,
    name_samples,
    say,
)
from qwen_eval.errors import InfrastructureError, UserError

if TYPE_CHECKING:
    from qwen_eval.context_table import ContextTable, Row
    from qwen_eval.model.config import ModelConfig
    from qwen_eval.paper import Table
    from qwen_eval.reports.render import Language
    from qwen_eval.results import Run
    from qwen_eval.types import Item

FARTHEST = 8  # times the trained length that the last column has
DRAWN = ("table.txt", "table.json", "table.svg")


@dataclass(frozen=True)
class ContextOptions:
    """The options of `context`."""

    out: Annotated[
        Path, typer.Option(help="A folder for the table and its runs; the same one resumes it.")
    ]
    model: Annotated[str, typer.Option(help="What to judge; see `qwen-eval models`.")] = "tiny"
    data: Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")] = None
    tasks: Annotated[
        str, typer.Option(help="Tasks or suites with recipes by length, without recipes.")
    ] = "longppl"
    lengths: Annotated[
        str | None, typer.Option(help="Columns: 1024,4096; else from the trained length on.")
    ] = None
    rows: Annotated[str, typer.Option(help="Of base, ntk, ntk-logn, all and yarn.")] = (
        "base,ntk,ntk-logn,all"
    )
    limit: Annotated[int | None, typer.Option(min=1, help="Texts per task, a fixed draw.")] = None
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences computed at a time.")] = None
    kv_memory: Annotated[
        str | None, typer.Option(help="Memory for keys and values, such as 2GiB.")
    ] = None
    paper: Annotated[bool, typer.Option("--paper", help="The published figures below.")] = False
    language: Annotated[str, typer.Option(help="Of the picture: en or zh.")] = "en"
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(ContextOptions)
def command(options: ContextOptions) -> None:
    """Perplexity by length of context: plain, with NTK, with LogN, with windows (Table 3)."""
    check_choice("--dtype", options.dtype, DTYPES)
    check_choice("--device", options.device, DEVICES)
    check_choice("--language", options.language, LANGUAGES)
    rows = chosen_rows(options.rows)
    names, known = tasks_by_length(options.tasks)
    folder, config = _opened(options.model)
    lengths = chosen_lengths(options.lengths, known, config.trained_length)
    check_folder(options.out)
    recipes = ",".join(f"{name}@{length}" for name in names for length in lengths)
    tasks = load_tasks(recipes, options.data, str(options.limit) if options.limit else None)
    name_samples(tasks)
    stretch = max(lengths[-1] / config.trained_length, 1.0)
    planned = {row.name: row_options(row, options, recipes, lengths[-1], stretch) for row in rows}
    configs = check_rows(planned, config)
    missing = [
        row for row in rows if not _is_kept(planned[row.name], tasks, folder, configs[row.name])
    ]
    failures = _ask_rows(missing, planned, tasks)
    if failures is None:
        return
    runs = {row.name: _read(options.out / row.name) for row in rows}
    from qwen_eval.context_table import build

    _write(build(runs, rows, names, lengths, config.trained_length), options)
    if failures:
        raise InfrastructureError(failures[0])


def chosen_rows(names: str) -> list[Row]:
    """`base,all` → rows in the table's order. Raises UserError for an unknown one, and where base
    is not among them."""
    from qwen_eval.context_table import ROWS

    wanted = {name.strip() for name in names.split(",")}
    known = [row.name for row in ROWS]
    if not wanted <= set(known) or known[0] not in wanted:
        raise UserError(f"--rows {names}: choose of {', '.join(known)}; base is always one of them")
    return [row for row in ROWS if row.name in wanted]


def tasks_by_length(names: str) -> tuple[list[str], list[int]]:
    """`longppl` → its tasks without recipes, and the lengths that all of them have recipes for.
    Raises UserError for a task that has none."""
    from qwen_eval.suites import expand
    from qwen_eval.taskspec import find_task

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if "@" in name:
            raise UserError(f"--tasks {name}: name no recipe, --lengths chooses them")
    found = list(dict.fromkeys(name.partition("@")[0] for name in expand(wanted)))
    if not found:
        raise UserError("--tasks: name at least one, such as longppl")
    common: set[int] | None = None
    for name in found:
        lengths = {int(recipe) for recipe in find_task(name)[0].recipes if recipe.isdigit()}
        if not lengths:
            raise UserError(f"--tasks {name}: has no recipes by length; longppl has")
        common = lengths if common is None else common & lengths
    return found, sorted(common or ())


def chosen_lengths(text: str | None, known: Sequence[int], trained: int) -> list[int]:
    """The columns, ascending: those named, or the last recipe within the trained length (else the
    shortest) and on up to 8 times it. Raises UserError for a length without a recipe, naming those
    that have one."""
    if text is None:
        first = max((length for length in known if length <= trained), default=known[0])
        return [length for length in known if first <= length <= FARTHEST * max(trained, first)]
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) not in known]
    if wrong:
        lengths = ",".join(map(str, known))
        raise UserError(
            f"--lengths {text}: there is no recipe for {wrong[0]!r}; choose of {lengths}"
        )
    return sorted({int(part) for part in parts})


def check_folder(out: Path) -> None:
    """Raises UserError unless `out` is new, empty, or the folder of such a table."""
    from qwen_eval.context_table import ROWS
    from qwen_eval.fileio import is_temporary

    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out}: not a folder")
    ours = {*DRAWN, *(row.name for row in ROWS)}
    for entry in out.iterdir():
        if entry.name not in ours and not is_temporary(entry):
            raise UserError(f"--out {out}: holds {entry.name}, so it is no table's; choose another")


def row_options(
    row: Row, options: ContextOptions, recipes: str, longest: int, stretch: float
) -> RunOptions:
    """The `run` that makes a row: every switch is said, and the context is as long as is asked.
    `stretch`: YaRN's factor, where it is on."""
    return RunOptions(
        tasks=recipes,
        model=options.model,
        data=options.data,
        out=options.out / row.name,
        limit=str(options.limit) if options.limit else None,
        dtype=options.dtype,
        device=options.device,
        batch=options.batch,
        kv_memory=options.kv_memory,
        max_length=longest,
        ntk=row.ntk,
        logn=row.logn,
        window=row.window,
        yarn=stretch if row.yarn else None,
    )


def check_rows(planned: Mapping[str, RunOptions], config: ModelConfig) -> dict[str, ModelConfig]:
    """The model as each row reads it. A row that it cannot be read in is known before the first
    one is asked. Raises UserError."""
    found = {}
    for name, run in planned.items():
        try:
            switches = context_switches(run)
            found[name] = config.with_context(**switches, max_length=run.max_length)
        except UserError as error:
            raise UserError(f"--rows {name}: {error}") from error
    return found


def _opened(name: str) -> tuple[Path, ModelConfig]:
    """The checkpoint's folder and what its config.json says."""
    from qwen_eval.cli.names import resolve
    from qwen_eval.model.config import load_config

    resolved = resolve(name)
    if resolved.backend != "native":
        raise UserError(
            f"--model {name}: its context cannot be switched; name a checkpoint folder of a family "
            "that our own engine runs"
        )
    folder = Path(resolved.target)
    return folder, load_config(folder)


def _is_kept(
    options: RunOptions, tasks: list[LoadedTask], model: Path, config: ModelConfig
) -> bool:
    """Whether a row is there already, without one sample that failed. No model is opened for it.
    Raises UserError where its folder holds the run of another model, limit or length."""
    from qwen_eval.backends.base import folder_fingerprint
    from qwen_eval.results import read_info, read_samples
    from qwen_eval.run_writer import refuse_another

    assert options.out is not None
    if not (options.out / "run.json").exists():
        return False
    there = read_info(options.out)
    expected: dict[str, Any] = there.model | {
        "fingerprint": folder_fingerprint(model),
        "detail": {"windows": list(config.windows)},
    }
    if options.dtype != "auto":
        expected["dtype"] = options.dtype
    refuse_another(options.out, there, run_info(tasks, expected, None, options))
    if not (options.out / "DONE").exists():
        return False
    return all(record.status != "error" for record in read_samples(options.out))


def _ask_rows(
    rows: Sequence[Row], planned: Mapping[str, RunOptions], tasks: list[LoadedTask]
) -> list[str] | None:
    """Make the runs that are missing, one after the other; returns why some cannot be relied upon,
    None where this process has only a part of them."""
    whole = len(rows) * sum(_tokens(item) for task in tasks for item in task.items)
    failures: list[str] = []
    shared = False
    with progress(whole, unit="tokens") as bar:
        meter = Meter(_tokens, lambda _, done: _going_on(bar, done))
        for row in rows:
            say(f"{row.label}:")
            options = planned[row.name]
            backend = open_backend(options, sorted({task.length for task in tasks}))
            try:
                assert options.out is not None
                info = run_info(tasks, asdict(backend.info()), None, options)
                asked = ask(tasks, backend, None, info, options.out, meter)
            finally:
                backend.close()
                del backend
                gc.collect()  # the next row's model takes its place
            shared = shared or asked is None
            failures += [asked.failure] if asked and asked.failure else []
    if shared:
        say("the rest is with other processes; when all are done, the same command draws the table")
        return None
    return failures


def _tokens(item: Item) -> int:
    """How much of a text is read at most, in tokens; the length where one prompt is."""
    span = item.window.span if item.window else 0
    return span or int(item.recipe.rpartition("@")[2])


@contextmanager
def _going_on(bar: Progress, done: int) -> Iterator[Progress]:
    bar.found(done)
    yield bar


def _read(folder: Path) -> Run:
    """A run without its texts and replies, which would be books."""
    from qwen_eval.results import read_run

    run = read_run(folder)
    return replace(run, samples=[replace(one, text="", responses=[]) for one in run.samples])


def _write(table: ContextTable, options: ContextOptions) -> None:
    from qwen_eval.fileio import write_atomic
    from qwen_eval.reports.context import context_text
    from qwen_eval.reports.context_picture import context_picture

    published = _published() if options.paper else []
    language: Language = "zh" if options.language == "zh" else "en"
    text = context_text(table, published)
    plain = table.to_json()
    if published:
        plain["paper"] = [one.model_dump(include={"table", "source", "rows"}) for one in published]
    written = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    drawn = (text, written + "\n", context_picture(table, language=language))
    for name, content in zip(DRAWN, drawn, strict=True):
        write_atomic(options.out / name, content)
    print(text, end="", file=sys.stderr if options.as_json else sys.stdout)
    say(f"wrote {', '.join(str(options.out / name) for name in DRAWN)}")
    if options.as_json:
        print(json.dumps({"out": str(options.out)} | plain))


def _published() -> list[Table]:
    from qwen_eval.paper import tables

    return [table for table in tables() if table.kind == "long-context"]
