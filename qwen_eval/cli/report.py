"""`qwen-eval report`: run directories in, one page out that anybody can open."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import LANGUAGES, check_alpha, check_choice, say
from qwen_eval.errors import UserError
from qwen_eval.reports.plain import one_line

if TYPE_CHECKING:
    from qwen_eval.reports.render import Language
    from qwen_eval.reports.view import Report
    from qwen_eval.results import Run

FORMS = (".html", ".json", ".csv")


@dataclass(frozen=True)
class ReportOptions:
    """The options of `report`."""

    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories, the first one the baseline; else the last in runs/."),
    ] = None
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A .html file; .json or .csv for its figures.")
    ] = Path("report.html")
    gate: Annotated[
        Path | None, typer.Option(help="A verdict that `gate --out` wrote, shown first.")
    ] = None
    language: Annotated[str, typer.Option(help="en or zh.")] = "en"
    samples: Annotated[bool, typer.Option(help="With every sample, to search and filter.")] = True
    alpha: Annotated[float, typer.Option(help="Chance of a false alarm.")] = 0.05
    watch: Annotated[bool, typer.Option("--watch", help="Write it anew while a run goes on.")] = (
        False
    )
    every: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds between two, with --watch.")
    ] = 10.0
    open_it: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False


@command_from(ReportOptions)
def command(options: ReportOptions) -> None:
    """Write a self-contained HTML page: verdict, scores, differences, samples, provenance."""
    folders = options.runs or [_last_run(Path("runs"))]
    _check(options, folders)
    runs = _read(folders)
    going = options.watch and not all(run.finished for run in runs)
    for path in _write(runs, options, going):
        print(f"wrote {one_line(str(path))} ({path.stat().st_size / 1024:,.0f} KiB)")
    if options.open_it:
        _open(options.out)
    if going:
        _watch(folders, runs, options)


def _check(options: ReportOptions, folders: list[Path]) -> None:
    from qwen_eval.results import FILES

    check_choice("--language", options.language, LANGUAGES)
    check_alpha(options.alpha)
    out = options.out
    if out.suffix not in FORMS:
        raise UserError(f"--out {out}: end it in {', '.join(FORMS)}")
    if os.path.isdir(out):
        raise UserError(f"--out {out}: a folder; name a file in it")
    if out.name in FILES and os.path.exists(out.parent / "run.json"):
        raise UserError(f"--out {out}: belongs to a run; choose another name")
    if len(set(map(os.path.realpath, folders))) < len(folders):
        raise UserError("a run is named twice")
    if options.watch and out.suffix != ".html":
        raise UserError("--watch: only a .html page shows itself anew")


def _watch(folders: list[Path], runs: list[Run], options: ReportOptions) -> None:
    """Writes the page anew until the last run has ended."""
    try:
        while not all(run.finished for run in runs):
            asked = sum(task.selected for run in runs for task in run.info.tasks.values())
            say(f"{sum(len(run.samples) for run in runs)}/{asked} samples")
            time.sleep(options.every)
            runs = _read(folders)
            _write(runs, options, going=True)
    finally:
        # However it ended: the page that stays must not go on waiting for another.
        _write(runs, options, going=False)


def _last_run(folder: Path) -> Path:
    """The run that was written to last."""
    found = list(folder.glob("*/run.json"))
    if not found:
        raise UserError(f"name a run directory: there is none in {folder}/")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def _read(folders: list[Path]) -> list[Run]:
    from qwen_eval.results import read_run

    return [read_run(folder) for folder in folders]


def _write(runs: list[Run], options: ReportOptions, going: bool) -> list[Path]:
    from qwen_eval.fileio import encodable, write_atomic
    from qwen_eval.reports.view import build

    if options.out.suffix == ".csv":
        from qwen_eval.results import to_frame

        write_atomic(options.out, to_frame(run.folder for run in runs).to_csv(index=False))
        return [options.out]
    gate = _gate(options.gate, runs) if options.gate else None
    report = build(runs, gate=gate, alpha=options.alpha)
    if options.out.suffix == ".json":
        text = json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomic(options.out, encodable(text) + "\n")
        return [options.out]
    return _write_pages(runs, report, options, going)


def _write_pages(
    runs: list[Run], report: Report, options: ReportOptions, going: bool
) -> list[Path]:
    from qwen_eval.fileio import write_atomic
    from qwen_eval.reports.render import SampleSet, page, samples_page
    from qwen_eval.reports.samples import INLINE_BYTES, pack

    language: Language = "zh" if options.language == "zh" else "en"
    written = [options.out]
    samples = SampleSet()
    if options.samples:
        count, packed = pack(runs, [run.label for run in report.runs])
        if len(packed) <= INLINE_BYTES:
            samples = SampleSet(count, packed)
        else:
            beside = options.out.with_name(f"{options.out.stem}-samples.html")
            link = options.out.name
            write_atomic(beside, samples_page(report, packed, link, language=language))
            samples = SampleSet(count, link=beside.name)
            written.append(beside)
    refresh = max(round(options.every), 1) if going else None
    write_atomic(options.out, page(report, samples, language=language, refresh=refresh))
    return written


def _gate(path: Path, runs: list[Run]) -> dict[str, Any]:
    """The verdict in a file, which must be one about these runs."""
    from qwen_eval.gate import SCHEMA, Verdict
    from qwen_eval.results import as_written

    try:
        # A figure that is no number (a ratio over nothing) is an absent one.
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--gate {path}: cannot be read ({error})") from error
    try:
        verdict = as_written(Verdict, raw)
        if verdict.schema != SCHEMA or not all("type" in one.rule for one in verdict.rules):
            raise ValueError("schema")
        if any({"task", "item", "until", "reason"} - held.keys() for held in verdict.quarantine):
            raise ValueError("quarantine")
    except ValueError as error:
        raise UserError(
            f"--gate {path}: not a verdict that `qwen-eval gate --out` wrote ({error})"
        ) from error
    judged = verdict.candidate
    if not any(
        all(run.info.model.get(key) == judged.get(key) for key in ("name", "fingerprint", "dtype"))
        for run in runs
    ):
        raise UserError(
            f"--gate {path}: judges {judged.get('name')} ({judged.get('folder')}), which is none "
            "of the runs named"
        )
    return verdict.to_json()


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser was found; open {path} yourself")
