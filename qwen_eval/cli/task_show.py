"""`qwen-eval tasks show`: one sample of a task, byte for byte as a model sees it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.options import DataFolder, TaskPath
from qwen_eval.errors import UserError
from qwen_eval.reports.plain import visible

if TYPE_CHECKING:
    from qwen_eval.model.tokenizer import Tokenizer
    from qwen_eval.types import Item, Sample

WEIGHING = ("choice", "contexts", "continuation")  # solvers that have options weighed
READING = ("perplexity", "long_perplexity")  # solvers that have a text read
AROUND = 4  # tokens that are shown on each side of a seam


def command(
    name: Annotated[str, typer.Argument(help="A task: mmlu, or mmlu@qwen.")],
    sample_id: Annotated[str | None, typer.Option("--id", help="A sample's id.")] = None,
    row: Annotated[int | None, typer.Option(min=1, help="Its place in the data, from 1.")] = None,
    data: DataFolder = None,
    model: Annotated[
        str | None, typer.Option(help="Show its tokens where prompt and answer meet.")
    ] = None,
    task_path: TaskPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show a sample's prompt as a model will see it, in its parts, with target and scorer."""
    from qwen_eval.cli.setup import find_functions
    from qwen_eval.datasets import open_data
    from qwen_eval.prompts import Renderer
    from qwen_eval.taskspec import find_task

    spec, recipe = find_task(name, task_path or ())
    find_functions(spec)
    source = open_data(spec, data)
    item = Renderer(source, recipe).render(_chosen(source.samples(), sample_id, row))
    if item.fault:
        raise UserError(f"{item.recipe}, sample {item.sample.id}: {item.fault}")
    tokenizer = _tokenizer(model) if model is not None else None
    shown = parts_of(item, spec.solver_of(recipe)) | {"data": source.kind}
    if tokenizer is not None:
        shown["tokens"] = tokens_of(item, shown["solver"], tokenizer)
    if as_json:
        print(json.dumps(shown, ensure_ascii=False))
    else:
        print_parts(shown)


def parts_of(item: Item, solver: str) -> dict[str, Any]:
    """All of an item but its row. `prompt`: what it is put together of, in order; the texts of
    header and exemplars, item and haystack one after the other, those of a conversation as turns
    that are named by their role."""
    prompt = [(turn.role, turn.content) for turn in item.prompt.messages]
    if not prompt:
        prompt = [("shared prefix", item.prompt.prefix), ("text", item.prompt.text)]
    if item.hidden:
        prompt.insert(1, ("hidden between them, in a haystack", item.hidden.needle))
    return {
        "recipe": item.recipe,
        "id": item.sample.id,
        "solver": solver,
        "prompt": [{"part": part, "text": text} for part, text in prompt if text],
        "options": list(item.options),
        "gold": item.gold,
        "target": item.target,
        "reference": item.reference,
        "scorer": item.scorer,
        "metric": item.metric,
        "max_prompt_tokens": item.prompt.max_tokens,
        "decoding": None if solver in (*WEIGHING, *READING) else asdict(item.decoding),
    }


def tokens_of(item: Item, solver: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """The prompt as a model's tokens: how many, under ChatML their text, and the `seams` between
    them and every option, or the reference.

    `before` and `after` are [id, text] of the last and the first few; `natural`: the two joined
    would be read as these tokens, too. Where they would not, a model is asked for tokens that it
    never saw follow each other.
    """
    from qwen_eval.backends.encoding import PromptEncoder
    from qwen_eval.model import chatml

    prefix, text = item.prompt.prefix, item.prompt.text
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    shown: dict[str, Any] = {}
    if item.prompt.messages:
        turns = [(turn.role, turn.content) for turn in item.prompt.messages]
        prompt = list(chatml.encode_chat(turns, tokenizer, add_generation_prompt=True).ids)
        shown["chatml"] = tokenizer.decode(prompt, show_special=True)
        seams = [(prompt, tokenizer.encode(item.reference), True)]
    elif solver in WEIGHING:
        seams, encoder = [], PromptEncoder(tokenizer)
        for option in item.options:
            # A context stands before the text, which goes on with it; an option behind.
            head, tail = (option, text) if solver == "contexts" else (text, option)
            ids, (answer,) = encoder.encode_options(prefix, head, [tail])
            joined = tokenizer.encode(prefix + head + tail)
            seams.append((begin + ids or [tokenizer.start_id], answer, joined == ids + answer))
        prompt = seams[0][0]
    else:
        prompt, answer = begin + tokenizer.encode(prefix + text), tokenizer.encode(item.reference)
        joined = tokenizer.encode(prefix + text + item.reference)
        seams = [(prompt, answer, begin + joined == prompt + answer)]

    def named(ids: list[int]) -> list[tuple[int, str]]:
        return [(one, _text_of(one, tokenizer)) for one in ids]

    return shown | {
        "prompt": len(prompt),
        "seams": [
            {"before": named(before[-AROUND:]), "after": named(after[:AROUND]), "natural": natural}
            for before, after, natural in seams
            if solver in WEIGHING or item.reference
        ],
    }


def print_parts(shown: dict[str, Any]) -> None:
    """The same for a person: every text of the prompt between lines that name it."""
    mark = "; a SAMPLE, not the benchmark" if shown["data"] == "sample" else ""
    print(f"{shown['recipe']}, sample {shown['id']}, solver {shown['solver']}{mark}")
    tokens = shown.get("tokens", {})
    texts = [(part["part"], part["text"]) for part in shown["prompt"]]
    for part, text in [*texts, *((key, tokens[key]) for key in ("chatml",) if key in tokens)]:
        print(f"--- {part}: {len(text):,} characters")
        print(visible(text))
    print("---")
    for index, option in enumerate(shown["options"]):
        print(f"option {index}: {option!r}{' (gold)' * (index == shown['gold'])}")
    for key in ("target", "reference"):
        print(f"{key}: {shown[key]!r}")
    print(f"scorer: {shown['scorer']}, metric: {shown['metric']}")
    if shown["max_prompt_tokens"]:
        print(f"cut from the left past {shown['max_prompt_tokens']:,} tokens")
    if shown["decoding"]:
        decoding = ", ".join(f"{key} {value}" for key, value in shown["decoding"].items())
        print(f"decoding: {decoding}")
    if tokens:
        print(f"prompt: {tokens['prompt']:,} tokens")
    for seam in tokens.get("seams", ()):
        before, after = (
            " ".join(f"{number} {text!r}" for number, text in seam[side])
            for side in ("before", "after")
        )
        odd = "" if seam["natural"] else "   NOT how the two are read when joined"
        print(f"seam: … {before} | {after} …{odd}")


def _chosen(samples: list[Sample], sample_id: str | None, row: int | None) -> Sample:
    if sample_id is not None and row is not None:
        raise UserError("--id, --row: give one of them")
    if sample_id is not None:
        for sample in samples:
            if sample.id == sample_id:
                return sample
        raise UserError(f"--id {sample_id}: no such sample among {len(samples)}")
    if row is not None and row > len(samples):
        raise UserError(f"--row {row}: there are {len(samples)} rows")
    return samples[(row or 1) - 1]


def _tokenizer(name: str) -> Tokenizer:
    from qwen_eval.cli.names import resolve
    from qwen_eval.model.tokenizer import load_tokenizer

    resolved = resolve(name)
    if resolved.backend != "native":
        raise UserError(f"--model {name}: its tokens cannot be shown; name a checkpoint folder")
    return load_tokenizer(Path(resolved.target))


def _text_of(token: int, tokenizer: Tokenizer) -> str:
    """A token's bytes as text; half a character as its bytes; a control token's name."""
    found = tokenizer.decode_bytes([token]).decode("utf-8", "backslashreplace")
    return found or tokenizer.decode([token], show_special=True)
