"""`qwen-eval annotate`: a blinded pairwise study, from set-up over its pages to its findings."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli import annotate_judge
from qwen_eval.cli.annotating import DEFAULT, Database, Json, StudyFolder, open_study
from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import LANGUAGES, check_choice, say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.human_eval_ui.findings.findings import Findings
    from qwen_eval.human_eval_ui.study.making import Gathered, Rules
    from qwen_eval.human_eval_ui.study.spec import Study

app = typer.Typer(help="Compare answers blind: set a study up, serve it, close it, read it.")

app.command("judge")(annotate_judge.command)


@app.callback(invoke_without_command=True)
def command(context: typer.Context) -> None:
    """Serve the study in ./study, where there is one."""
    if context.invoked_subcommand is not None:
        return
    if not (DEFAULT / "study.json").exists():
        raise UserError(
            f"no study in ./{DEFAULT}; `qwen-eval annotate init --systems RUN RUN --baseline RUN` "
            "makes one, and `qwen-eval annotate --help` lists the rest"
        )
    serve(DEFAULT)


@dataclass(frozen=True)
class InitOptions:
    """The options of `annotate init`."""

    more: Annotated[list[Path] | None, typer.Argument(help="More runs.", show_default=False)] = None
    systems: Annotated[
        list[Path] | None, typer.Option(help="Run directories of human300, one per system.")
    ] = None
    baseline: Annotated[
        str | None, typer.Option(help="The run, or system, all are compared with; else all pairs.")
    ] = None
    answers: Annotated[
        Path | None, typer.Option(help="Instead of runs: JSON lines of prompts and answers.")
    ] = None
    out: Annotated[Path, typer.Option(help="The study's folder.")] = DEFAULT
    name: Annotated[str, typer.Option(help="What the study is called.")] = "human300"
    overlap: Annotated[int, typer.Option(help="Votes per pair, by as many annotators.")] = 3
    quota: Annotated[int | None, typer.Option(help="Pairs per annotator at most.")] = None
    gold: Annotated[
        int, typer.Option(help="Attention pairs: an answer beside itself, damaged.")
    ] = 10
    control_every: Annotated[
        int, typer.Option(help="One in so many is an attention or a repeated pair; 0: none.")
    ] = 15
    hide: Annotated[
        list[str] | None, typer.Option(help="A further word that would name a system.")
    ] = None
    dwell: Annotated[float, typer.Option(help="Seconds before which a press is no vote.")] = 1.5
    lease: Annotated[float, typer.Option(help="Minutes that a pair is kept for its reader.")] = 30.0
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Take empty answers.")] = False


@app.command("init")
@command_from(InitOptions)
def init(options: InitOptions) -> None:
    """Freeze a study: whose answers are compared, how often, and what will be reported."""
    from qwen_eval.human_eval_ui.study import making

    rules = making.Rules(
        name=options.name,
        overlap=options.overlap,
        quota=options.quota,
        control_every=options.control_every,
        gold=options.gold,
        dwell=options.dwell,
        lease=60 * options.lease,
        hidden=tuple(options.hide or ()),
        empty=options.allow_empty,
    )
    runs = [*(options.systems or ()), *(options.more or ())]
    if bool(runs) == (options.answers is not None):
        raise UserError("--systems or --answers: name the runs, or a file of answers")
    if options.answers is not None:
        gathered, baseline = making.from_lines(options.answers, rules), options.baseline
    else:
        gathered, baseline = _with_baseline(runs, options.baseline, rules)
    study = making.make_study(options.out, gathered, baseline, rules)
    _tell(study, gathered)


def _with_baseline(
    runs: list[Path], baseline: str | None, rules: Rules
) -> tuple[Gathered, str | None]:
    """The baseline may be named by its run, which need not be named twice, or as a system."""
    from qwen_eval.human_eval_ui.study import making

    path = Path(baseline) if baseline is not None else None
    is_run = path is not None and (path / "run.json").exists()
    if path is not None and is_run and path.resolve() not in [run.resolve() for run in runs]:
        runs = [*runs, path]
    gathered = making.from_runs(runs, rules)
    if path is None or not is_run:
        return gathered, baseline
    place = [run.resolve() for run in runs].index(path.resolve())
    return gathered, gathered.systems[place].name


def _tell(study: Study, gathered: Gathered) -> None:
    from qwen_eval.human_eval_ui.analysis.power import plan
    from qwen_eval.human_eval_ui.findings.words import plain

    spec = study.spec
    pairs = len(study.versus) * spec.items
    others = [system.name for system in spec.systems if system.name != spec.baseline]
    compared = (
        f"{', '.join(map(plain, others))} against {plain(spec.baseline)}"
        if spec.baseline
        else f"{len(others)} systems, each against each"
    )
    print(f"study {plain(spec.name)} ({spec.digest}) in {plain(str(study.folder), 500)}: "
          f"{spec.items} instructions, {compared}")  # fmt: skip
    print(f"{pairs} pairs × {spec.overlap} votes = {pairs * spec.overlap}")
    told = plan(spec.items, spec.overlap)
    found = (
        f"a difference of {100 * told.detectable:.1f} is found"
        if told.detectable <= 1
        else "no difference, however large, is found"
    )
    print(
        f"with {spec.items} items and {spec.overlap} votes you can tell ±{100 * told.net:.1f} "
        f"points of net preference; {found} four times in five (a fifth ties, votes on an item "
        "correlate by a half)"
    )
    masked = sum(bool(a.masked) for item in study.items.values() for a in item.answers.values())
    if masked:
        say(f"{masked} answers named a maker or a system: hidden, and counted in the findings")
    for system, count in gathered.cut.items():
        if count:
            say(f"{plain(system)}: {count} answers were cut at the token limit")
    if study.spec.items < 100:
        say(f"{spec.items} instructions are few: a category will tell next to nothing")


@app.command("invite")
def invite(
    study: StudyFolder,
    name: Annotated[str, typer.Argument(help="Whom; no export shows it unless asked.")],
    role: Annotated[str, typer.Option(help="annotator, viewer or owner.")] = "annotator",
    email: Annotated[str | None, typer.Option(help="Lets them come in by login as well.")] = None,
    url: Annotated[str, typer.Option(help="Where they reach the pages.")] = "http://localhost:8501",
    database: Database = None,
) -> None:
    """Print a link that lets one person in, once; a later one makes it void."""
    from qwen_eval.human_eval_ui.store import access

    with closing(open_study(study, database)) as store:
        token = access.invite(store, name, role, email)  # type: ignore[arg-type]
    print(f"{url.rstrip('/')}/join?token={token}")


@app.command("revoke")
def revoke(
    study: StudyFolder,
    name: Annotated[str, typer.Argument(help="Whom.")],
    database: Database = None,
) -> None:
    """Send somebody away; their votes stay."""
    from qwen_eval.human_eval_ui.store import access

    with closing(open_study(study, database)) as store:
        access.revoke(store, name)
    say(f"{name}: links and sessions open nothing any more")


@app.command("serve")
def serve(
    study: StudyFolder = DEFAULT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8501,
    solo: Annotated[
        bool, typer.Option("--solo", help="No sign-in, one person; this machine only.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="How visitors reach it, if through a proxy.")
    ] = None,
    database: Database = None,
) -> None:
    """Serve the pages until Ctrl-C, and print a link for the owner."""
    from qwen_eval.human_eval_ui import serving
    from qwen_eval.human_eval_ui.store import access

    serving.check_address(host, port, solo, url)
    with closing(open_study(study, database)) as store:
        here = (url or f"http://{'localhost' if host == '127.0.0.1' else host}:{port}").rstrip("/")
        token = None if solo else access.owner_token(store)
        if solo:
            say(f"without sign-in, for this machine: {here}")
        elif token is None:
            say(f"{access.OWNER} was sent away; other owners come in by their own links")
        else:
            say(f"owner's link, good for one time: {here}/join?token={token}")
            say(f"invite annotators: qwen-eval annotate invite {study} NAME --url {here}")
        serving.serve(store, host, port, solo=solo, url=url)


@app.command("status")
def status(study: StudyFolder = DEFAULT, database: Database = None, as_json: Json = False) -> None:
    """How far a study is, by category and annotator."""
    from qwen_eval.human_eval_ui.store import owning

    with closing(open_study(study, database)) as store:
        now = owning.progress(store)
        disputed = owning.disputes(store)
    if as_json:
        print(json.dumps(asdict(now) | {"disputes": len(disputed)}, ensure_ascii=False))
        return
    print(f"{now.state}: {now.votes} of {now.wanted} votes, {now.pairs_done} of {now.pairs} pairs "
          f"complete, {len(disputed)} disputed")  # fmt: skip
    for category, (got, wanted) in now.categories.items():
        print(f"  {category:16}{got:6} of {wanted}")
    for person in now.people:
        away = "" if person.active else ", sent away"
        print(
            f"  {person.id:4} {person.name} ({person.role}{away}): {person.votes} votes, "
            f"{person.skipped} skipped, {person.fast} too fast, attention {person.gold[0]} of "
            f"{person.gold[1]}, repeated alike {person.repeats[0]} of {person.repeats[1]}"
        )


@app.command("pause")
def pause(study: StudyFolder = DEFAULT, database: Database = None) -> None:
    """Take no votes for a while."""
    _become(study, database, "paused")


@app.command("resume")
def resume(study: StudyFolder = DEFAULT, database: Database = None) -> None:
    """Take votes again."""
    _become(study, database, "open")


@app.command("close")
def close(study: StudyFolder = DEFAULT, database: Database = None) -> None:
    """End the voting for good."""
    _become(study, database, "closed")


@app.command("unblind")
def unblind(study: StudyFolder = DEFAULT, database: Database = None) -> None:
    """Let a closed study show which system is which."""
    _become(study, database, "unblinded")


@app.command("report")
def report(
    study: StudyFolder = DEFAULT,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the figure, an SVG, to a file.")
    ] = None,
    language: Annotated[str, typer.Option(help="Of the figure: en or zh.")] = "en",
    database: Database = None,
    as_json: Json = False,
) -> None:
    """What the votes of an unblinded study say."""
    from qwen_eval.fileio import write_atomic
    from qwen_eval.human_eval_ui.exporting import findings_of
    from qwen_eval.human_eval_ui.findings.figure import figure4

    check_choice("--language", language, LANGUAGES)
    with closing(open_study(study, database)) as store:
        found = findings_of(store)
    if out is not None and found.baseline is None:
        raise UserError(f"--out {out}: the figure is of systems against a baseline; there is none")
    if out is not None:
        write_atomic(out, figure4(found, language="zh" if language == "zh" else "en"))
        say(f"wrote {out}")
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return
    _print(found)


def _print(found: Findings) -> None:
    from rich.console import Console

    from qwen_eval.human_eval_ui.findings.text import sentences, tables

    console = Console()
    for sentence in sentences(found):
        console.print(sentence, markup=False, highlight=False)
    for table in tables(found):
        console.print()
        console.print(table)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    study: StudyFolder = DEFAULT,
    names: Annotated[
        bool, typer.Option("--names", help="Annotators by their names, not a1, a2.")
    ] = False,
    database: Database = None,
) -> None:
    """Write votes, log, findings and run directories; before unblinding, only what names none."""
    from qwen_eval.human_eval_ui import exporting

    with closing(open_study(study, database)) as store:
        for path in exporting.export(store, out, names=names):
            say(f"wrote {path}")


def _become(study: Path, database: str | None, state: str) -> None:
    from qwen_eval.human_eval_ui.store import owning

    with closing(open_study(study, database)) as store:
        owning.set_state(store, state, owning.COMMAND_LINE)
    say(f"{study}: {state}")
