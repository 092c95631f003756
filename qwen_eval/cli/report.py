"""`qwen-eval report`: run directories in, one page out that anybody can open."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import LANGUAGES, check_choice, say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.reports.render import Language
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
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two, with --watch.")] = 10.0
    open_it: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False


@command_from(ReportOptions)
def command(options: ReportOptions) -> None:
    """Write a self-contained HTML page: verdict, scores, differences, samples, provenance."""
    check_choice("--language", options.language, LANGUAGES)
    if not 0 < options.alpha < 0.5:
        raise UserError(f"--alpha {options.alpha}: give a chance between 0 and 0.5, such as 0.05")
    if options.out.suffix not in FORMS:
        raise UserError(f"--out {options.out}: end it in {', '.join(FORMS)}")
    folders = options.runs or [_last_run(Path("runs"))]
    if len(set(folders)) < len(folders):
        raise UserError("a run is named twice")
    if options.watch and options.out.suffix != ".html":
        raise UserError("--watch: only a .html page shows itself anew")
    shown = False
    while True:
        runs = _read(folders)
        going = options.watch and not all(run.finished for run in runs)
        written = _write(runs, options, going)
        if not shown:
            for path in written:
                print(f"wrote {path} ({path.stat().st_size / 1024:,.0f} KiB)")
            if options.open_it:
                _open(options.out)
            shown = True
        if not going:
            return
        asked = sum(task.selected for run in runs for task in run.info.tasks.values())
        print(f"{sum(len(run.samples) for run in runs)}/{asked} samples", file=sys.stderr)
        time.sleep(options.every)


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
    from qwen_eval.fileio import write_atomic
    from qwen_eval.reports.view import build

    if options.out.suffix == ".csv":
        from qwen_eval.results import to_frame

        write_atomic(options.out, to_frame(run.folder for run in runs).to_csv(index=False))
        return [options.out]
    report = build(runs, gate=_gate(options.gate), alpha=options.alpha)
    if options.out.suffix == ".json":
        text = json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomic(options.out, text + "\n")
        return [options.out]
    return _write_pages(runs, report, options, going)


def _write_pages(runs: list[Run], report: Any, options: ReportOptions, going: bool) -> list[Path]:
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


def _gate(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--gate {path}: cannot be read ({error})") from error
    keys = {"schema", "verdict", "rules", "quarantine", "warnings"}
    if not isinstance(verdict, dict) or not keys <= verdict.keys() or verdict["schema"] != 1:
        raise UserError(f"--gate {path}: not a verdict that `qwen-eval gate --out` wrote")
    return verdict


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser was found; open {path} yourself")
