"""`qwen-eval train reward-report`: reward models on held-out pairs, in the shape of the paper's
Table 4, and what their rewards owe to the answers' lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.known_tests import data_folder
from qwen_eval.cli.options import DataFolder, command_from
from qwen_eval.cli.progress import progress
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import say

if TYPE_CHECKING:
    from qwen_eval.cli.reward_tables import Reports
    from qwen_eval.paper import Table
    from qwen_eval.train.reward import Pairs
    from qwen_eval.train.reward_report import SetReport


@dataclass(frozen=True, kw_only=True)
class RewardReportOptions:
    """The options of `train reward-report`."""

    models: Annotated[
        list[str], typer.Argument(help="Folders of reward models, such as pmp/model rm/model.")
    ]
    sets: Annotated[
        str, typer.Option(help="A YAML file of held-out pairs, or one of ours: tiny.")
    ] = "tiny"
    data: DataFolder = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="Pairs per set: a draw that their texts fix.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(RewardReportOptions)
def command(options: RewardReportOptions) -> None:
    """Measure reward models on pairs of answers that they have not seen."""
    from rich.console import Console

    from qwen_eval.cli.reward_tables import accuracy_table, length_table, paper_table
    from qwen_eval.paper import tables
    from qwen_eval.train.reward_report import read_reward_sets

    sets = read_reward_sets(find_recipe(options.sets, "reward-sets"))
    data = data_folder(options.data)
    reports: Reports = {}
    for name in dict.fromkeys(options.models):
        reports[name] = _report_of_model(name, sets, data, options.limit)
    paper = next(table for table in tables() if table.table == "table4")
    console = Console(stderr=options.as_json, emoji=False, highlight=False)
    console.print("Accuracy on held-out pairs, % with a 95% interval; a tie is half a pair")
    console.print(accuracy_table(reports))
    console.print("\nIn the paper, on sets of its own (Qwen Technical Report, Table 4)")
    console.print(paper_table(paper))
    console.print("\nWhat rewards owe to the length of answers")
    console.print(length_table(reports))
    if options.as_json:
        print(json.dumps(_as_json(reports, paper)))


def _report_of_model(
    name: str, sets: Mapping[str, Pairs], data: Path, limit: int | None
) -> dict[str, SetReport]:
    import torch

    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.train.reward import gather
    from qwen_eval.train.reward_report import drawn, judge, report_of
    from qwen_eval.train.scalar_model import load_scalar_model

    model = load_scalar_model(Path(name))
    if torch.cuda.is_available():
        model.cuda()
    length = model.transformer.config.trained_length
    gathered = gather(sets, data, load_tokenizer(Path(name)), length, "leave_out")
    for cause, count in gathered.left_out.items():
        say(f"{name}: left out, {cause}: {count}")
    chosen = {of: drawn(pairs, limit) for of, pairs in gathered.pairs.items()}
    with progress(sum(map(len, chosen.values())), unit="pairs") as bar:
        return {of: report_of(judge(model, pairs, bar.advance)) for of, pairs in chosen.items()}


def _as_json(reports: Reports, paper: Table) -> dict[str, Any]:
    models = {
        name: {of: asdict(one) for of, one in found.items()} for name, found in reports.items()
    }
    return {"models": models, "paper": paper.rows}
