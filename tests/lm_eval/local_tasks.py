"""Tasks of lm-evaluation-harness over rows of our own, as files: every kind of request that it
knows, exemplars that it draws, two filters, metrics that are no means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

COLOURS = ("red", "green", "blue", "white")


def rows(count: int) -> list[dict[str, Any]]:
    """Questions with four options, a number as answer, and a short text."""
    return [
        {
            "question": f"What has number {n}?",
            "choices": [f"{COLOURS[(n + i) % 4]} {'x' * i}thing" for i in range(4)],
            "answer": n * 7 % 4,
            "number": str(n),
            "text": f"Line {n} of a text, which says {COLOURS[n % 4]} {n} times.\n" * (1 + n % 3),
        }
        for n in range(count)
    ]


CHOICE: dict[str, Any] = {
    "task": "local_choice",
    "output_type": "multiple_choice",
    "fewshot_split": "train",
    "num_fewshot": 2,
    "description": "Questions about things.\n\n",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
        {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True},
    ],
}
WRITE: dict[str, Any] = {
    "task": "local_write",
    "output_type": "generate_until",
    "doc_to_text": "Number: {{number}}\nAgain:",
    "doc_to_target": "number",
    "generation_kwargs": {"until": ["\n", "zz"], "max_gen_toks": 12, "do_sample": False},
    "filter_list": [
        {
            "name": "first",
            "filter": [
                {"function": "regex", "regex_pattern": "([0-9])"},
                {"function": "take_first"},
            ],
        },
        {"name": "as_is", "filter": [{"function": "take_first"}]},
    ],
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
    ],
}
READ: dict[str, Any] = {
    "task": "local_read",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [
        {"metric": "word_perplexity"},
        {"metric": "byte_perplexity"},
        {"metric": "bits_per_byte"},
    ],
}
LAST: dict[str, Any] = {
    "task": "local_last",
    "output_type": "loglikelihood",
    "doc_to_text": "{{text.split(' says ')[0]}} says",
    "doc_to_target": " {{text.split(' says ')[1].split(' ')[0]}}",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
}
ONLY_WHOLE: dict[str, Any] = CHOICE | {
    "task": "local_whole",
    "metric_list": [
        {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True},
    ],
}


def write_task(folder: Path, task: dict[str, Any], count: int = 12, **changes: Any) -> Path:
    """A YAML file over `count` rows of its own and 8 others for exemplars."""
    folder.mkdir(parents=True, exist_ok=True)
    made = rows(count + 8)
    files = {}
    for split, part in (("test", made[:count]), ("train", made[count:])):
        path = folder / f"{split}-{count}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        files[split] = str(path)
    whole = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        **task,
        **changes,
    }
    path = folder / f"{whole['task']}.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path
