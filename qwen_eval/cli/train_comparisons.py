"""`qwen-eval train comparisons`: pairs of answers of which one is preferred, for `train reward`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.asked_models import AskingOptions
from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.comparisons.build import Build, Source

# Tags in the table on the terminal; summary.json has all.
SHOWN_TAGS = 40


@dataclass(frozen=True, kw_only=True)
class ComparisonsOptions(AskingOptions):
    """The options of `train comparisons`."""

    prompts: Annotated[list[Path], typer.Option(help="JSON lines of prompts; may be repeated.")]
    out: Annotated[Path, typer.Option(help="Folder of the build; the same one resumes.")]
    models: Annotated[str, typer.Option(help="Who answers, such as tiny-chat,smollm2.")]
    temperatures: Annotated[str, typer.Option(help="Samplers of each, such as 0.7,1.0.")] = (
        "0.7,1.0"
    )
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Nucleus.")] = 0.9
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 512
    count: Annotated[int, typer.Option(min=1, help="Prompts that are answered.")] = 1000
    tagger: Annotated[
        str | None, typer.Option(help="A model that tags prompts; else plain rules.")
    ] = None
    least: Annotated[int, typer.Option(min=1, help="Prompts that a tag must stand at.")] = 1
    judge: Annotated[
        str | None, typer.Option(help="A model that scores, or a folder of `train reward`.")
    ] = None
    scores: Annotated[
        Path | None, typer.Option(help="Scores that people gave: JSON lines of id and score.")
    ] = None
    pairs: Annotated[int | None, typer.Option(min=1, help="Most pairs of a prompt.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(ComparisonsOptions)
def command(options: ComparisonsOptions) -> None:
    """Tag prompts, draw diverse and complex ones, answer, score and pair; the same command resumes.

    Without --judge and --scores it stops at answers.jsonl, for people to score."""
    from qwen_eval.train.comparisons.build import Build, Settings
    from qwen_eval.train.comparisons.prompts import read_prompts
    from qwen_eval.train.comparisons.scoring import given_scores
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.replies import Replies

    if options.judge and options.scores:
        raise UserError("--judge and --scores: give one of them")
    sources = _sources(options)
    tagger = options.asked_model(options.tagger) if options.tagger else None
    given = given_scores(options.scores) if options.scores else {}
    prompts, again = read_prompts(options.prompts)
    settings = Settings(
        options.count, options.least, options.pairs, options.max_tokens, options.seed
    )
    with locked(options.out), closing(Replies(options.out / "replies.jsonl")) as replies:
        build = Build(options.out, replies, settings, say)
        build.counts["prompts that stand there twice"] = again
        build.choose(prompts, tagger)
        build.answer(sources)
        if options.judge:
            _judge(build, options)
        elif options.scores:
            build.score_by(given)
        path = build.write_answers()
        if not (options.judge or options.scores):
            say(f"wrote {path}: fill in each score, and give it with --scores")
            return
        summary = build.pair()
    _show(summary, options)


def _sources(options: ComparisonsOptions) -> list[Source]:
    from qwen_eval.train.comparisons.build import LEAST_SOURCES, Source

    names = [name.strip() for name in options.models.split(",") if name.strip()]
    temperatures = []
    for text in filter(None, map(str.strip, options.temperatures.split(","))):
        try:
            temperatures.append(float(text))
        except ValueError:
            temperatures.append(-1.0)
        if not 0 <= temperatures[-1] <= 10:
            raise UserError(f"--temperatures {options.temperatures}: give numbers such as 0.7,1.0")
    for flag, given in (("--models", names), ("--temperatures", temperatures)):
        if len(set(map(str, given))) < len(given):
            raise UserError(f"{flag}: one is named twice")
    if len(names) * len(temperatures) < LEAST_SOURCES:
        raise UserError(
            f"--models {options.models} --temperatures {options.temperatures}: "
            f"{len(names) * len(temperatures)} models × samplers, give at least {LEAST_SOURCES}"
        )
    return [
        Source(f"{name}@{temperature:g}", model, temperature, options.top_p)
        for name in names
        for model in [options.asked_model(name)]
        for temperature in temperatures
    ]


def _judge(build: Build, options: ComparisonsOptions) -> None:
    from qwen_eval.train.comparisons.scoring import BY_JUDGE, BY_REWARD
    from qwen_eval.train.scalar_model import SCORE

    assert options.judge is not None
    judge: Any
    if (Path(options.judge) / SCORE).is_file():
        from qwen_eval.backends.base import choose_device, folder_fingerprint
        from qwen_eval.fileio import file_hash
        from qwen_eval.train.comparisons.reward_judge import RewardJudge

        folder = Path(options.judge)
        identity = f"{folder_fingerprint(folder)} {file_hash(folder / SCORE)[:16]}"
        judge, scorer = RewardJudge(folder, identity, choose_device(options.device)), BY_REWARD
    else:
        judge, scorer = options.asked_model(options.judge), BY_JUDGE
    build.score(scorer, judge)


def _show(summary: dict[str, Any], options: ComparisonsOptions) -> None:
    from qwen_eval.reports.plain import visible

    lines = [f"{'tag':<44}{'before':>9}{'after':>9}"]
    tags = list(summary["tags"].items())
    for tag, of_tag in tags[:SHOWN_TAGS]:
        lines.append(f"{tag:<44}{of_tag['before']:>9,}{of_tag['after']:>9,}")
    if len(tags) > SHOWN_TAGS:
        lines.append(f"and {len(tags) - SHOWN_TAGS:,} tags more")
    mean = summary["tags a prompt"]
    lines.append(f"{'tags a prompt':<44}{mean['before']:>9.2f}{mean['after']:>9.2f}")
    lines.append(
        f"{'prompts':<44}{summary['prompts']['read']:>9,}{summary['prompts']['chosen']:>9,}"
    )
    lines.append("")
    lines.append(f"{'source':<44}{'answers':>9}{'score':>9}{'better':>9}{'worse':>9}")
    for name, row in summary["sources"].items():
        score = "" if row["mean score"] is None else f"{row['mean score']:.2f}"
        lines.append(
            f"{name:<44}{row['answers']:>9,}{score:>9}{row['preferred']:>9,}{row['rejected']:>9,}"
        )
    lines += [f"{reason}: {count:,}" for reason, count in summary["left out"].items()]
    typer.echo(visible("\n".join(lines)), err=options.as_json)
    for error, count in summary["failed requests"].items():
        say(f"{count} requests failed and are asked again by the same command: {error}")
    say(f"{summary['pairs']:,} comparisons in {options.out / 'comparisons.jsonl'}")
    if options.as_json:
        print(json.dumps(summary, ensure_ascii=False))
