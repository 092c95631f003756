"""`qwen-eval train ppo-report`: what policies gained on held-out prompts, beside best-of-n."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from qwen_eval.cli.known_tests import data_folder
from qwen_eval.cli.options import DataFolder, command_from
from qwen_eval.cli.progress import progress
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.table import ResultsTable, Row
from qwen_eval.cli.train_ppo import begin_with, judge_of, queries_of
from qwen_eval.cli.training import own_model
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.model.engine import Sampling
    from qwen_eval.model.transformer import Transformer
    from qwen_eval.train.ppo import Begun
    from qwen_eval.train.ppo_report import Drawn, Judges, Outcome
    from qwen_eval.train.queries import Query
    from qwen_eval.train.scalar_model import ScalarModel

Module = TypeVar("Module", "Transformer", "ScalarModel")


@dataclass(frozen=True, kw_only=True)
class PPOReportOptions:
    """The options of `train ppo-report`."""

    policies: Annotated[
        list[str], typer.Argument(help="Models that PPO made, such as run/model; at least one.")
    ]
    recipe: Annotated[
        str, typer.Option(help="The recipe of the run, which says what is held out.")
    ] = "tiny-ppo"
    model: Annotated[str, typer.Option(help="What they began as.")]
    reward: Annotated[Path, typer.Option(help="The reward model that they were trained on.")]
    judge: Annotated[Path, typer.Option(help="Another, trained on other pairs.")]
    data: DataFolder = None
    draws: Annotated[
        int, typer.Option(min=1, help="Replies of the beginning to choose the best of.")
    ] = 16
    limit: Annotated[int | None, typer.Option(min=2, help="Prompts, the first so many.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(PPOReportOptions)
def command(options: PPOReportOptions) -> None:
    """Draw replies to prompts that were held out, and have two reward models judge them."""
    from rich.console import Console

    from qwen_eval.model.chatml import END
    from qwen_eval.train.data.decontaminate import known_tests
    from qwen_eval.train.ppo import read_ppo
    from qwen_eval.train.ppo_report import Judges

    recipe = read_ppo(find_recipe(options.recipe, "ppo"))
    base = own_model(options.model)
    begun = begin_with(base, options.reward)
    judge = judge_of(options.judge, begun.tokenizer)
    # What is not trained on needs no test set kept from it.
    nothing = known_tests({}, recipe.decontaminate.n)
    found = queries_of(recipe, begun, data_folder(options.data), nothing, tell=True)
    queries = found.held_out[: options.limit]
    if len(queries) < 2:
        raise UserError(f"held_out: {recipe.held_out} leaves {len(queries)} prompts; hold out more")
    judges = Judges(_placed(begun.reward), _placed(judge), begun.tokenizer.special(END))
    outcomes = _outcomes(options, begun, judges, queries, recipe.sampling, recipe.seed)
    console = Console(stderr=options.as_json, emoji=False, highlight=False)
    console.print(
        f"{len(queries)} held-out prompts, a reply each. gain: by the judge, in standard deviations"
        " of its rewards of the first line. KL: nats per reply, of best-of-n the bound"
    )
    console.print(table(outcomes))
    if options.as_json:
        rows = [asdict(outcome) for outcome in outcomes]
        print(json.dumps({"prompts": len(queries), "rows": rows}))


def _outcomes(
    options: PPOReportOptions,
    begun: Begun,
    judges: Judges,
    queries: Sequence[Query],
    sampling: Sampling,
    seed: int,
) -> list[Outcome]:
    from qwen_eval.model.weights import load_model
    from qwen_eval.train.ppo_report import (
        best_of,
        best_of_kl,
        divergence,
        draw,
        matching,
        outcome,
    )

    others = begun.tokenizer.stop_ids
    weights = _placed(begun.base)
    replies = len(queries) * (options.draws + len(options.policies))

    def drawn(model: Transformer, draws: int, advance: Callable[[int], None]) -> list[Drawn]:
        told = draw(
            model,
            queries,
            sampling,
            judges.end,
            others,
            seed=seed,
            draws=draws,
            advance=advance,
        )
        return [judges.read(each) for each in told]

    with progress(replies, unit="replies") as bar:
        of_base = drawn(weights, options.draws, bar.advance)
        first = of_base[0]
        policies = []
        for name in options.policies:
            model = _placed(load_model(own_model(name)))
            (told,) = drawn(model, 1, bar.advance)
            kl = divergence(model, weights, told.replies)
            policies.append(outcome(name, told, first, kl))
    matched = {matching(policy.kl, options.draws) for policy in policies}
    powers = {2**i for i in range(1, 64) if 2**i <= options.draws}
    several = [
        outcome(f"best of {n}", best_of(of_base[:n]), first, best_of_kl(n))
        for n in sorted((matched | powers) - {1})
    ]
    return [outcome(options.model, first, first, 0.0), *policies, *several]


def table(found: Sequence[Outcome]) -> ResultsTable:
    """A row for each."""
    columns = (
        "\nreward",
        "\njudge",
        "\n95% interval",
        "\ngain",
        "\n95% interval",
        "\nKL",
        "\ntokens",
        "without\nend",
    )
    rows = [
        Row(
            one.name,
            (
                f"{one.reward:.3f}",
                f"{one.judged:.3f}",
                f"{one.low:.3f} – {one.high:.3f}",
                f"{one.gain:+.2f}",
                f"{one.gain_low:+.2f} – {one.gain_high:+.2f}",
                f"{one.kl:.2f}",
                f"{one.length:.1f}",
                f"{100 * one.missing_end:.1f}%",
            ),
        )
        for one in found
    ]
    return ResultsTable(tuple(rows), columns, "policy", ())


def _placed(model: Module) -> Module:
    """On a GPU if there is one."""
    import torch

    return model.cuda() if torch.cuda.is_available() else model
