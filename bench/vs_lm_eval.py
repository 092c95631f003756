"""Whole evaluations as whole processes: ours against lm-evaluation-harness's hf backend.

    python -m bench.vs_lm_eval --data ../shared/data

The same rows, weights, dtype and threads. The peer runs its own task files through its own command
line, only its data set is named otherwise, at the batch size that was fastest for it on a few rows.
Prints time, peak memory, the ratio, and how far the answers agree, sample by sample.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qwen_eval.fileio import read_jsonl
from qwen_eval.model import smollm2
from qwen_eval.results import read_samples

# Of different lengths: from 90 tokens behind a short prefix to 700 behind a long one.
SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "high_school_us_history",
    "moral_scenarios",
    "professional_law",
)
BATCHES = (1, 4, 16)


@dataclass
class Cost:
    """What a process took: seconds of wall time, MiB at its peak."""

    seconds: float
    peak: float


def main() -> None:
    """Print one table per set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--model", type=Path, default=smollm2.folder(), help="a model folder")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--questions", type=int, default=60, help="per MMLU subject")
    parser.add_argument("--texts", type=int, default=32, help="of GSM8K and of HumanEval")
    parser.add_argument("--batch", type=int, help="the peer's, where it is known to be its best")
    parser.add_argument("--sets", default="mmlu,gsm8k,humaneval")
    options = parser.parse_args()
    sets = {"mmlu": compare_mmlu, "gsm8k": compare_texts, "humaneval": compare_texts}
    for name in options.sets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            sets[name](Bench(options, Path(folder)), name)


class Bench:
    """One set of rows in a folder of its own, as a mirror of ours and as a task of the peer's."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder

    def mirror(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Rows at a place of our mirror."""
        path = self.folder / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def task(self, name: str, include: str, splits: dict[str, Any], **changes: Any) -> None:
        """A task of the peer's: its own file, over these rows."""
        folder = self.folder / "tasks"
        folder.mkdir(exist_ok=True)
        files = {}
        for split, rows in splits.items():
            files[split] = str(folder / f"{name}_{split}.jsonl")
            Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = read_task(include) | {
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
            **changes,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))

    def ours(self, task: str, *more: str) -> Cost:
        """Our command line; the run directory is `folder`/run."""
        return self._run(
            [sys.executable, "-m", "qwen_eval", "run", "--tasks", task, "--data",
             str(self.folder / "mirror"), "--model", str(self.options.model), "--dtype",
             self.options.dtype, "--out", str(self.folder / "run"), *more]
        )  # fmt: skip

    def theirs(self, tasks: list[str], batch: int, *more: str) -> Cost:
        """The peer's command line; its samples go to `folder`/peer."""
        model = f"pretrained={self.options.model},dtype={self.options.dtype}"
        return self._run(
            [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", model,
             "--tasks", ",".join(tasks), "--include_path", str(self.folder / "tasks"), "--device",
             "cpu", "--batch_size", str(batch), "--log_samples", "--output_path",
             str(self.folder / "peer"), *more]
        )  # fmt: skip

    def best_batch(self, tasks: list[str], *more: str) -> int:
        """The batch size that is fastest for the peer on eight rows of each task."""
        if self.options.batch:
            return self.options.batch
        tried = {b: self.theirs(tasks, b, "--limit", "8", *more).seconds for b in BATCHES}
        print("peer's batch:", ", ".join(f"{b}: {s:.1f} s" for b, s in tried.items()))
        self.clean()
        return min(tried, key=lambda batch: tried[batch])

    def clean(self) -> None:
        """Forget what both have answered."""
        for part in ("peer", "run"):
            shutil.rmtree(self.folder / part, ignore_errors=True)

    def peer_samples(self) -> Iterator[dict[str, Any]]:
        """What the peer logged."""
        for path in sorted((self.folder / "peer").rglob("samples_*.jsonl")):
            yield from read_jsonl(path)

    def _run(self, command: list[str]) -> Cost:
        log = self.folder / "log"
        settings = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(self.folder / "cache")}
        began = time.perf_counter()
        with log.open("w") as file:
            redirected = [(os.POSIX_SPAWN_DUP2, file.fileno(), number) for number in (1, 2)]
            process = os.posix_spawn(
                command[0], command, os.environ | settings, file_actions=redirected
            )
            _, status, usage = os.wait4(process, 0)
        if status:
            sys.exit(f"{' '.join(command)}\n{log.read_text()[-3000:]}")
        return Cost(time.perf_counter() - began, usage.ru_maxrss / 1024)


class _Loader(yaml.SafeLoader):
    """Reads the peer's task files without its functions, which ask the hub for a metric."""


_Loader.add_constructor("!function", lambda loader, node: None)


def read_task(name: str) -> dict[str, Any]:
    """One of the peer's task files. What scores programs is left out: they are not run."""
    import lm_eval

    text = (Path(lm_eval.__path__[0]) / "tasks" / name).read_text(encoding="utf-8")
    settings: dict[str, Any] = yaml.load(text, _Loader)
    if settings.pop("unsafe_code", False):
        del settings["metric_list"], settings["filter_list"]
    return settings


def compare_mmlu(bench: Bench, name: str) -> None:
    """Each subject in a process of its own."""
    options = bench.options
    test, dev = (
        list(read_jsonl(options.data / "mmlu" / f"{split}.jsonl.gz")) for split in ("test", "dev")
    )
    bench.mirror("mmlu/dev.jsonl.gz", dev)
    rows = {
        subject: [row for row in test if row["subject"] == subject][: options.questions]
        for subject in SUBJECTS
    }
    for subject, chosen in rows.items():
        title = subject.replace("_", " ")
        bench.task(
            f"bench_{subject}",
            "mmlu/default/_default_template_yaml",
            {"test": chosen, "dev": [row for row in dev if row["subject"] == subject]},
            num_fewshot=5,
            description="The following are multiple choice questions (with answers) about "
            f"{title}.\n\n",
        )
    batch = bench.best_batch(["bench_anatomy", "bench_professional_law"])
    print(f"\n{name}, 5-shot, {options.dtype}, whole processes, peer at batch {batch}")
    costs, differences, same = [], [], []
    for subject, chosen in rows.items():
        bench.mirror("mmlu/test.jsonl.gz", chosen)
        costs.append((bench.ours("mmlu"), bench.theirs([f"bench_{subject}"], batch)))
        print(line(f"{subject} ({len(chosen)})", *costs[-1]), flush=True)
        mine = [record.responses[0]["logprobs"] for record in read_samples(bench.folder / "run")]
        theirs = {s["doc_id"]: [float(r[0][0]) for r in s["resps"]] for s in bench.peer_samples()}
        for i, (one, other) in enumerate(zip(mine, map(theirs.get, range(len(mine))), strict=True)):
            assert other is not None, f"the peer has no row {i}"
            differences += [abs(a - b) for a, b in zip(one, other, strict=True)]
            same.append(one.index(max(one)) == other.index(max(other)))
        bench.clean()
    ours, peer = (
        Cost(sum(pair[i].seconds for pair in costs), max(pair[i].peak for pair in costs))
        for i in (0, 1)
    )
    print(line(f"all six ({len(same)})", ours, peer))
    print(f"agreement: {sum(same)} of {len(same)} options, log-probs within {max(differences):.1e}")


def compare_texts(bench: Bench, name: str) -> None:
    """Greedy texts of GSM8K or HumanEval."""
    options = bench.options
    path = {"gsm8k": "gsm8k/test.jsonl.gz", "humaneval": "humaneval/test.jsonl.gz"}[name]
    include = {"gsm8k": "gsm8k/gsm8k-cot.yaml", "humaneval": "humaneval/humaneval.yaml"}[name]
    rows = list(read_jsonl(options.data / path))[: options.texts]
    bench.mirror(path, rows)
    bench.task(f"bench_{name}", include, {"test": rows}, tag=None)
    batch = bench.best_batch([f"bench_{name}"], "--predict_only")
    print(f"\n{name}, {options.dtype}, whole processes, peer at batch {batch}")
    peer = bench.theirs([f"bench_{name}"], batch, "--predict_only")
    ours = bench.ours(f"{name}@lm-eval")
    print(line(f"{len(rows)} texts", ours, peer))
    key = {"gsm8k": "question", "humaneval": "prompt"}[name]
    theirs = {sample["doc"][key]: sample["resps"][0][0] for sample in bench.peer_samples()}
    prefixes = json.loads((bench.folder / "run" / "prompts.json").read_text(encoding="utf-8"))
    records = read_samples(bench.folder / "run")
    gaps = []
    for record in records:
        asked = next(question for question in theirs if question in record.text)
        texts = theirs[asked], str(record.responses[0].get("text", ""))
        if texts[0] != texts[1]:
            gaps.append(tie(options.model, prefixes[record.prefix] + record.text, *texts))
    print(f"agreement: {len(records) - len(gaps)} of {len(records)} texts equal")
    for gap, who in gaps:
        print(f"  where two part, transformers alone, in fp32, goes on as {who}, by {gap:.1e}")


def tie(folder: Path, prompt: str, theirs: str, ours: str) -> tuple[float, str]:
    """The distance of transformers' two best log-probs where two greedy texts part, and whose
    text it goes on with, asked without a batch."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = [tokenizer.encode(prompt + text) for text in (theirs, ours)]
    parted = (i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    common = next(parted, min(map(len, ids)))
    with torch.inference_mode():
        logits = model(torch.tensor([ids[0][:common]]), logits_to_keep=1).logits[0, 0]
    top = logits.log_softmax(-1).topk(2)
    following = [line[common] if common < len(line) else None for line in ids]
    right = [who for who, token in zip(("the peer", "ours"), following, strict=True)
             if token == int(top.indices[0])]  # fmt: skip
    return float(top.values[0] - top.values[1]), " ".join(right) or "neither"


def line(title: str, ours: Cost, peer: Cost) -> str:
    """One row: seconds and MiB of both, and how many times faster we are."""
    return (
        f"{title:28} ours {ours.seconds:7.1f} s {ours.peak:6.0f} MiB   "
        f"peer {peer.seconds:7.1f} s {peer.peak:6.0f} MiB   {peer.seconds / ours.seconds:5.1f}x"
    )


if __name__ == "__main__":
    main()
