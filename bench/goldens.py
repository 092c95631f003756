"""What lm-evaluation-harness itself asks and gets, item by item: the goldens of our tests.

    python -m bench.goldens --data ../shared/data

Its own task files are run over the mirror's rows, in the columns of the hub, through its json
loader and its hf backend in fp32 on SmolLM2. Per item a golden holds hashes of the prompt's bytes
and token ids, and the log-probability of every option (of a generation, the text). Ours are then
held against them: bytes, ids, and log-probabilities; texts may part only where the two next tokens
are all but equally likely. The goldens are written only when all agree, or with --write.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.peers import answers, native
from qwen_eval.backends.native import NativeBackend
from qwen_eval.cli.setup import load_task
from qwen_eval.datasets import TaskData, open_data, renamed, take
from qwen_eval.fileio import text_hash
from qwen_eval.model import smollm2
from qwen_eval.taskspec import find_task
from qwen_eval.types import GenerateRequest, Item, LoglikelihoodRequest, ModelRequest, Prompt, Row

FOLDER = Path(__file__).parents[1] / "tests" / "tasks" / "goldens"
TOLERANCE = 1e-3  # of a log-probability, in nats
LETTERS = "ABCDE"


def arc(row: Row) -> Row:
    """A row of the mirror as the hub has it."""
    labels = list(LETTERS[: len(row["choices"])])
    return {
        "question": row["query"].removeprefix("Question: "),
        "choices": {"text": row["choices"], "label": labels},
        "answerKey": labels[row["gold"]],
    }


def boolq(row: Row) -> Row:
    """A row of the mirror as the hub has it."""
    passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question.removesuffix("?"), "label": row["gold"]}


def piqa(row: Row) -> Row:
    """A row of the mirror as the hub has it."""
    goal = row["query"].removeprefix("Question: ").removesuffix("\n")
    return {
        "goal": goal,
        "sol1": row["choices"][0],
        "sol2": row["choices"][1],
        "label": row["gold"],
    }


def hellaswag(row: Row) -> Row:
    """A row of the mirror as the hub has it. The mirror has joined the two halves of the context
    and left the second without its capital: both halves are one here, and a full stop away."""
    activity, _, context = row["ctx"].partition(": ")
    first, _, second = context.rpartition(" ")
    return {
        "activity_label": activity,
        "ctx_a": first,
        "ctx_b": second,
        "endings": row["endings"],
        "label": str(row["label"]),
    }


def winogrande(row: Row) -> Row:
    """A row of the mirror as the hub has it: contexts begin alike and end in their options."""
    one, two = row["context_options"]
    same = 0
    while same < min(len(one), len(two)) and one[same] == two[same]:
        same += 1
    return {
        "sentence": f"{one[:same]}_ {row['continuation']}",
        "option1": one[same:],
        "option2": two[same:],
        "answer": str(row["gold"] + 1),
    }


def lambada(row: Row) -> Row:
    """A row of the mirror as the hub has it."""
    return {"text": f"{row['context']} {row['continuation']}"}


def as_it_is(row: Row) -> Row:
    """A row whose columns are the hub's."""
    return row


@dataclass(frozen=True)
class Golden:
    """One set: our recipe, their task file, and how a row of the mirror becomes one of the hub's.
    `count`: items; `fewshot` as their --num_fewshot."""

    recipe: str
    file: str
    hub: Callable[[Row], Row] = as_it_is
    count: int = 200
    fewshot: int | None = None


GOLDENS = (
    Golden("mmlu@strict", "mmlu/default/mmlu_{}.yaml", fewshot=5),
    Golden("arc_easy@lm-eval", "arc/arc_easy.yaml", arc),
    Golden("arc_challenge@lm-eval", "arc/arc_challenge.yaml", arc),
    Golden("hellaswag@lm-eval", "hellaswag/hellaswag.yaml", hellaswag),
    Golden("piqa@lm-eval", "piqa/piqa.yaml", piqa),
    Golden("boolq@lm-eval", "super_glue/boolq/default.yaml", boolq),
    Golden("winogrande@lm-eval", "winogrande/default.yaml", winogrande),
    Golden("lambada@lm-eval", "lambada/lambada_openai.yaml", lambada),
    Golden("gsm8k@lm-eval", "gsm8k/gsm8k-cot.yaml", count=50),
)


def our_items(golden: Golden, data: Path) -> list[tuple[Row, Item]]:
    """The fixed draw of --limit: rows as the hub has them, and what we make of these."""
    spec, recipe = find_task(golden.recipe)
    source = open_data(spec, data)
    assert spec.hub is not None
    rows = [golden.hub(sample.row) for sample in take(source.samples(), golden.count)]
    splits = {name: source.rows(name) for name in spec.splits if name != spec.eval_split}
    splits[spec.eval_split] = [renamed(spec.hub, dict(row)) for row in rows]
    items = load_task(TaskData(spec, "mirror", data, splits), recipe).items
    return list(zip(rows, items, strict=True))


def our_requests(item: Item) -> list[LoglikelihoodRequest]:
    """What an item's solver asks, one request per context."""
    if not _weighs_contexts(item.recipe):
        return [LoglikelihoodRequest(item.prompt, item.options)]
    return [LoglikelihoodRequest(Prompt(c), (item.prompt.text,)) for c in item.options]


@cache
def _weighs_contexts(recipe: str) -> bool:
    return find_task(recipe)[0].solver == "contexts"


def asked_by(item: Item) -> list[tuple[str, str]]:
    """Every (context, continuation) of an item, in order."""
    return [
        (request.prompt.full_text, continuation)
        for request in our_requests(item)
        for continuation in request.continuations
    ]


# --- theirs ----------------------------------------------------------------------------------


def their_asked(golden: Golden, rows: list[Row], data: Path) -> list[list[Any]]:
    """The instances that their task makes of each row."""
    with tempfile.TemporaryDirectory() as folder:
        if "{}" not in golden.file:
            return _instances(golden, golden.file, rows, {}, Path(folder))
        dev = open_data(find_task(golden.recipe)[0], data).rows("dev")
        found: dict[int, list[Any]] = {}
        for subject in sorted({row["subject"] for row in rows}):
            own = [number for number, row in enumerate(rows) if row["subject"] == subject]
            shots = {"dev": [row for row in dev if row["subject"] == subject]}
            place = Path(folder) / subject
            place.mkdir()
            file = golden.file.format(subject)
            asked = _instances(golden, file, [rows[number] for number in own], shots, place)
            found |= dict(zip(own, asked, strict=True))
        return [found[number] for number in range(len(rows))]


def _instances(
    golden: Golden, file: str, rows: list[Row], shots: dict[str, list[Any]], folder: Path
) -> list[list[Any]]:
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = dict(load_yaml(Path(lm_eval.__path__[0]) / "tasks" / file))
    split = config.get("test_split") or config["validation_split"]
    files = {}
    for name, held in ({split: rows} | shots).items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in held), encoding="utf-8")
        files[name] = str(path)
    config |= {"dataset_path": "json", "dataset_name": None, "training_split": None}
    config["dataset_kwargs"] = {"data_files": files}
    if config.get("test_split"):
        config["validation_split"] = None
    for ours in ("include", "tag", "group", "task_alias"):
        config.pop(ours, None)
    if golden.fewshot is not None:
        config["num_fewshot"] = golden.fewshot
    task = ConfigurableTask(config=config)
    task.build_all_requests()
    asked: list[list[Any]] = [[] for _ in rows]
    for instance in task.instances:
        asked[instance.doc_id].append(instance)
    return asked


def their_answers(folder: Path, asked: list[list[Any]]) -> list[list[Any]]:
    """Log-probabilities, or texts, of their hf backend in fp32."""
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(folder), dtype="float32", batch_size=4, device="cpu")
    flat = [instance for instances in asked for instance in instances]
    if flat[0].request_type == "generate_until":
        found = iter(lm.generate_until(flat, disable_tqdm=True))
    else:
        found = iter(float(pair[0]) for pair in lm.loglikelihood(flat, disable_tqdm=True))
    return [[next(found) for _ in instances] for instances in asked]


# --- the goldens ------------------------------------------------------------------------------


def golden_of(item: Item, asked: list[Any], got: list[Any], encode: Callable[[str], Any]) -> Row:
    """One line of a golden file."""
    contexts = [str(instance.args[0]) for instance in asked]
    written = not isinstance(got[0], float)
    return {
        "id": item.sample.id,
        "prompts": [text_hash(context) for context in dict.fromkeys(contexts)],
        "ids": [text_hash(str(list(encode(c)))) for c in dict.fromkeys(contexts)],
        "options": [] if written else [text_hash(str(i.args[1])) for i in asked],
        "logprobs": [] if written else [round(value, 5) for value in got],
        "text": got[0] if written else "",
    }


def path_of(recipe: str) -> Path:
    """Where a recipe's goldens lie."""
    return FOLDER / f"{recipe.replace('@', '-')}.jsonl.gz"


def write(recipe: str, rows: Iterable[Row]) -> None:
    """One JSON object per line, compressed."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path_of(recipe).parent.mkdir(exist_ok=True)
    path_of(recipe).write_bytes(gzip.compress(lines.encode(), mtime=0))


def main() -> None:
    """Make the goldens and hold ours against them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--recipes", default=",".join(g.recipe for g in GOLDENS))
    parser.add_argument("--write", action="store_true", help="write them whatever ours are")
    options = parser.parse_args()
    folder = smollm2.require()
    ours = native(folder)
    assert isinstance(ours, NativeBackend)
    for golden in (g for g in GOLDENS if g.recipe in options.recipes.split(",")):
        rows, items = map(list, zip(*our_items(golden, options.data), strict=True))
        asked = their_asked(golden, rows, options.data)
        equal = sum(_same_prompts(item, a) for item, a in zip(items, asked, strict=True))
        got = their_answers(folder, asked)
        mine = our_answers(ours, items)
        print(f"{golden.recipe}: {len(items)} items, {equal} asked in the same bytes", flush=True)
        if items[0].options:
            agree = _report_options(mine, got)
        else:
            agree = _report_texts(ours, items, mine, got)
        agree = agree and equal == len(items)
        if agree or options.write:
            encode = ours.tokenizer.encode
            lines = [golden_of(*each, encode) for each in zip(items, asked, got, strict=True)]
            write(golden.recipe, lines)


def our_answers(backend: Any, items: list[Item]) -> list[list[Any]]:
    """Log-probabilities, or texts, of our engine, in the order of asked_by."""
    if not items[0].options:
        written: list[ModelRequest] = [GenerateRequest(i.prompt, i.decoding) for i in items]
        return [[response.text] for response in answers(backend, written)]
    each = [our_requests(item) for item in items]
    flat: list[ModelRequest] = [request for requests in each for request in requests]
    found = iter(answers(backend, flat))
    return [[x for _ in requests for x in next(found).logprobs] for requests in each]


def _same_prompts(item: Item, asked: list[Any]) -> bool:
    theirs = [tuple(instance.args) for instance in asked]
    if not item.options:
        return [item.prompt.full_text] == [args[0] for args in theirs]
    return asked_by(item) == theirs


def _report_options(mine: list[list[float]], theirs: list[list[float]]) -> bool:
    largest = max(
        abs(a - b) for x, y in zip(mine, theirs, strict=True) for a, b in zip(x, y, strict=True)
    )
    print(f"  largest difference of a log-probability {largest:.1e}", flush=True)
    return largest <= TOLERANCE


def _report_texts(
    backend: NativeBackend, items: list[Item], mine: list[list[str]], theirs: list[list[str]]
) -> bool:
    """A text that goes another way does so where two log-probabilities, each off by at most the
    tolerance, can change places."""
    pairs = [(i, a, b) for i, [a], [b] in zip(items, mine, theirs, strict=True) if a != b]
    gaps = [gap(backend, item.prompt.full_text, a, b) for item, a, b in pairs]
    for (item, a, b), apart in zip(pairs, gaps, strict=True):
        at = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
        parting = " / ".join(repr(text[max(0, at - 40) : at + 40]) for text in (a, b))
        print(f"  {item.sample.id}: ours / theirs {parting}, {apart:.1e} nats", flush=True)
    largest = f", where others part the tokens are {max(gaps):.1e} nats apart" if gaps else ""
    print(f"  {len(items) - len(gaps)} of {len(items)} texts equal{largest}", flush=True)
    return all(one <= 2 * TOLERANCE for one in gaps)


def gap(backend: NativeBackend, prompt: str, mine: str, theirs: str) -> float:
    """How much likelier one of two texts' first different tokens is than the other, in nats."""
    encode, decode = backend.tokenizer.encode, backend.tokenizer.decode
    ids = [list(encode(text)) for text in (mine, theirs)]
    same = next((at for at, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), None)
    if same is None:
        return float("inf")  # one ends where the other goes on
    said = prompt + decode(ids[0][:same])
    tokens = tuple(decode([one[same]]) for one in ids)
    [response] = answers(backend, [LoglikelihoodRequest(Prompt(said), tokens)])
    return abs(response.logprobs[0] - response.logprobs[1])


if __name__ == "__main__":
    main()
