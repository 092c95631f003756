"""`qwen-eval train self-instruct`: samples of tool use that a model writes after seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.asked_models import AskingOptions
from qwen_eval.cli.known_tests import data_folder
from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import say
from qwen_eval.errors import MissingDataError

if TYPE_CHECKING:
    from qwen_eval.train.self_instruct.likeness import Likeness
    from qwen_eval.train.self_instruct.output import Render
    from qwen_eval.train.self_instruct.rounds import KnownQuestions
    from qwen_eval.train.self_instruct.samples import Sample

# The tasks of the harness that judge the use of tools, and the one whose prompt samples have.
JUDGED_BY, ASKED_AS = ("react_tools", "bfcl_tools"), "react_tools"


@dataclass(frozen=True, kw_only=True)
class SelfInstructOptions(AskingOptions):
    """The options of `train self-instruct`."""

    model: Annotated[str, typer.Option(help="Who writes samples; see `qwen-eval models`.")]
    out: Annotated[Path, typer.Option(help="Folder of the build; the same one resumes.")]
    seeds: Annotated[
        list[Path] | None,
        typer.Option(help="JSON lines of seeds beside ours; may be repeated."),
    ] = None
    data: Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")] = None
    samples: Annotated[int, typer.Option(min=1, help="Samples that are wanted.")] = 2000
    rounds: Annotated[int, typer.Option(min=1, help="Most rounds.")] = 5
    asked: Annotated[int, typer.Option(min=1, help="Drafts of a round.")] = 1000
    shots: Annotated[int, typer.Option(min=1, help="Examples that the model sees.")] = 3
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="0 is greedy.")] = 0.7
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Nucleus.")] = 0.95
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest piece in tokens.")] = 256
    simulate: Annotated[
        bool, typer.Option(help="Let the model play tools that are no programs of ours.")
    ] = True
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(SelfInstructOptions)
def command(options: SelfInstructOptions) -> None:
    """Let a model write ReAct samples, keep what rules and Rouge-L let pass; the same command
    resumes, and honours the verdicts that people wrote into review.csv."""
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.replies import Replies
    from qwen_eval.train.self_instruct.output import SHEET, write_all
    from qwen_eval.train.self_instruct.review import read_verdicts
    from qwen_eval.train.self_instruct.rounds import Goal, Rounds
    from qwen_eval.train.self_instruct.seeds import own_seeds, read_seeds
    from qwen_eval.train.self_instruct.writing import Manner

    model = options.asked_model(options.model)
    read_verdicts(options.out / SHEET)  # whose faults are said before anybody is asked
    given, left = read_seeds(options.seeds or [])
    if left:
        say(f"seeds: {left:,} rows hold no sample that the rules would keep")
    tests = _tests(data_folder(options.data))
    seeds = [seed for seed in own_seeds() + given if tests.found_in(seed) is None]
    if gone := len(given) + len(own_seeds()) - len(seeds):
        say(f"seeds: {gone:,} left out, too near to a test set")
    likeness = _likeness([seed.query for seed in seeds])
    goal = Goal(options.samples, options.rounds, options.asked, options.shots)
    manner = Manner(
        options.temperature,
        options.top_p,
        options.max_tokens,
        simulate=options.simulate,
        seed=options.seed,
    )
    with locked(options.out), closing(Replies(options.out / "replies.jsonl")) as replies:
        rounds = Rounds(seeds, model, replies, goal, manner, likeness, tests, say)
        try:
            rounds.run()
        finally:
            model.close()
        summary = write_all(options.out, rounds, _renderer())
    _show(summary, options)


def _likeness(texts: Sequence[str]) -> Likeness:
    from qwen_eval.tasks.scorers.rouge import rouge_l, words
    from qwen_eval.train.self_instruct.likeness import Likeness

    def tokens(text: str) -> list[str]:
        return words(text.lower())

    found = Likeness(tokens, lambda one, other: rouge_l(one, other, tokens))
    for text in texts:
        found.add(text)
    return found


def _tests(data: Path) -> KnownQuestions:
    """The questions of the tasks that judge the use of tools."""
    from qwen_eval.datasets import open_data
    from qwen_eval.taskspec import find_task
    from qwen_eval.train.data.decontaminate import known_tests
    from qwen_eval.train.self_instruct.rounds import KnownQuestions

    sets: dict[str, list[list[str]]] = {}
    for name in JUDGED_BY:
        spec, _ = find_task(name)
        try:
            rows = list(open_data(spec, data).rows(spec.eval_split))
        except MissingDataError as error:
            say(f"{name}: NOTHING of its test set is known ({error})")
            continue
        sets[name] = [[_question(row)] for row in rows]
    questions = [text for rows in sets.values() for (text,) in rows]
    return KnownQuestions(known_tests(sets), _likeness(questions))


def _question(row: Any) -> str:
    return str(row["query"]) if "query" in row else str(row["question"][0][0]["content"])


def _renderer() -> Render:
    """A sample's question in the very turns in which the harness asks."""
    from qwen_eval.taskspec import find_task
    from qwen_eval.templates import fill

    spec, recipe = find_task(ASKED_AS)
    asked = spec.recipes[recipe]

    def render(sample: Sample) -> list[tuple[str, str]]:
        row = {"tools": list(sample.tools), "query": sample.query}
        return [("system", asked.system or ""), ("user", fill(asked.item, row))]

    return render


def _show(summary: dict[str, Any], options: SelfInstructOptions) -> None:
    from qwen_eval.reports.plain import visible

    drafts, kept = summary["drafts"], summary["kept"]
    lines = [f"kept {kept:,} of {drafts:,} drafts, {kept / drafts:.1%}"]
    lines += [f"  {key}: {reason:<56}{n:>8,}" for key, reason, n in summary["dropped"]]
    for name in ("languages", "calls", "observed by"):
        parts = ", ".join(f"{key} {n:,}" for key, n in sorted(summary[name].items()))
        lines.append(f"{name} of what is written: {parts or 'none'}")
    lines += summary["people"]
    typer.echo(visible("\n".join(lines)), err=options.as_json)
    for error, count in summary["failed requests"].items():
        say(f"{count} requests failed and are asked again by the same command: {error}")
    say(f"{summary['written']:,} samples in {options.out / 'samples.jsonl'}")
    say(f"what was kept and dropped: {options.out / 'page.html'}; to judge it: review.csv there")
    if options.as_json:
        print(json.dumps(summary, ensure_ascii=False))
