"""Our corpus steps and datatrove's on the same texts in one run: speed, recall, false drops.

    python -m bench.data --data MIRROR --documents 400

Needs datatrove[processing,multilingual] beside this project. Both sides get one process, the same
shards of gzipped JSON lines, and write such. Near-repeats are planted: in every fifth text a share
of the words is left out, doubled or replaced, or it gets another layout, a heading and a footer.
Recall is over planted pairs whose Jaccard similarity of 5-grams of words is at least 0.8, by plain
sets; a false drop is a text without a planted twin whose similarity to every other text is below
0.5 (tales have a few near-repeats of their own; these are counted apart).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from qwen_eval.train.data import steps
from qwen_eval.train.data.dedup import Near
from qwen_eval.train.data.minhash import FuzzySettings
from qwen_eval.train.data.recipe import read_recipe
from qwen_eval.train.data.shards import read_shard, save_array, shard_writer
from qwen_eval.train.data.stage import Folder
from qwen_eval.train.documents import Document, identity
from tests.train.corpora import edited, framed, jaccard, plain_shingles

CORPORA = {"en": "en_novels", "zh": "zh_vernacular"}


def plant(data: Path, name: str, count: int) -> tuple[list[Document], dict[str, str]]:
    """Texts in random order, and for the id of each planted one the id of its original."""
    rng = random.Random(7)
    with gzip.open(data / "pretrain" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(count), strict=False)]
    documents, twins = [], {}
    for i, text in enumerate(texts):
        documents.append(Document(identity(f"{name}{i}"), text, name, name[:2]))
        if i % 5 == 0:
            other = (
                framed(rng, text) if i % 15 == 0 else edited(rng, text, rng.uniform(0.002, 0.02))
            )
            twin = Document(identity(f"{name}{i}t"), other, name, name[:2])
            documents.append(twin)
            if jaccard(list(plain_shingles(text)), list(plain_shingles(other))) >= 0.8:
                twins[twin.id] = documents[-2].id
    rng.shuffle(documents)
    return documents, twins


def ours(folder: Path, shards: list[Path]) -> set[str]:
    """Near-repeats out; ids of what stays."""
    method = Near(FuzzySettings())
    stage = Folder(folder / "3-fuzzy")
    stage.open("bench")
    stems = [folder / f"{i}" for i in range(len(shards))]
    for stem, shard in zip(stems, shards, strict=True):
        steps.sign_unit(shard, stem, method)
    drops = folder / "drops.npy"
    save_array(drops, method.find(stems, 1 << 28))
    for i, shard in enumerate(shards):
        steps.drop_unit(shard, stage, f"{i:05}", i, drops, method)
    return {one.id for path in stage.kept() for one in read_shard(path)}


def theirs(folder: Path, source: Path, count: int, language: str) -> set[str]:
    """The same with datatrove's four MinHash steps and its own settings."""
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config = MinhashConfig()
    signatures, buckets, removed = (str(folder / n) for n in ("signatures", "buckets", "removed"))
    out = folder / "out"
    local(
        [JsonlReader(str(source)), MinhashDedupSignature(signatures, config, language=language)],
        count,
    )
    local([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets)
    local([MinhashDedupCluster(buckets, removed, config=config)], 1)
    local([JsonlReader(str(source)), MinhashDedupFilter(removed), JsonlWriter(str(out))], count)
    return kept_ids(out)


def false_drops(documents: list[Document], dropped: set[str]) -> tuple[int, int]:
    """(texts unlike all others, texts that are like another) among those dropped."""
    wrong = 0
    for one in (one for one in documents if one.id in dropped):
        mine = list(plain_shingles(one.text))
        likeness = (jaccard(mine, list(plain_shingles(o.text))) for o in documents if o is not one)
        wrong += max(likeness) < 0.5
    return wrong, len(dropped) - wrong


def local(pipeline: list[Any], tasks: int) -> None:
    """Run datatrove's steps in this process, without its files of logs."""
    for rank in range(tasks):
        data: Any = None
        for step in pipeline:
            data = step(data, rank, tasks)
        for _ in data or ():
            pass


def kept_ids(folder: Path) -> set[str]:
    """Ids in datatrove's output."""
    kept = set()
    for path in folder.rglob("*.jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            kept |= {json.loads(line)["id"] for line in file}
    return kept


def our_rules(folder: Path, shards: list[Path]) -> int:
    """The English rules of the recipe of ours; how many texts stay."""
    recipe = read_recipe(Path(__file__).parents[1] / "train" / "recipes" / "data" / "tiny.yaml")
    stage = Folder(folder / "4-filter")
    stage.open("bench")
    for i, shard in enumerate(shards):
        name = f"{i:05}"
        steps.filter_unit(shard, stage, name, recipe.rules, recipe.sources, (), folder)
    stage.finish()
    return stage.counts().kept.total()


def their_rules(folder: Path, source: Path, count: int) -> int:
    """Gopher's quality and repetition filters; how many texts stay."""
    from datatrove.pipeline.filters import (
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    filters = [GopherQualityFilter(), GopherRepetitionFilter()]
    local([JsonlReader(str(source)), *filters, JsonlWriter(str(folder / "out"))], count)
    return len(kept_ids(folder / "out"))


def main() -> None:
    """Both sides, one after the other, on each corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=400)
    options = parser.parse_args()
    for language, name in CORPORA.items():
        documents, twins = plant(options.data, name, options.documents)
        size = sum(len(one.text.encode()) for one in documents) / 1e6
        paired = set(twins) | set(twins.values())
        marked = {identity(f"{name}{i}") for i in range(0, options.documents, 5)}
        innocent = {one.id for one in documents} - paired - marked
        work = Path(tempfile.mkdtemp())
        source = work / "source"
        source.mkdir()
        shards = []
        for i in range(2):
            shards.append(source / f"{i:05}.jsonl.gz")
            with shard_writer(shards[-1]) as writer:
                for one in documents[i::2]:
                    writer.add(one.record())
        code = {"en": "eng_Latn", "zh": "cmn_Hani"}[language]
        runs: dict[str, Any] = {
            "near-repeats, ours": lambda f, s=shards: ours(f, s),
            "near-repeats, datatrove": lambda f, s=source, c=code: theirs(f, s, 2, c),
        }
        if language == "en":
            runs["rules, ours"] = lambda f, s=shards: our_rules(f, s)
            runs["rules, datatrove"] = lambda f, s=source: their_rules(f, s, 2)
        print(f"{name}: {len(documents)} texts, {size:.1f} MB, {len(twins)} planted at >= 0.8")
        for label, run in runs.items():
            folder = work / label.replace(" ", "-")
            folder.mkdir()
            began = time.perf_counter()
            kept = run(folder)
            seconds = time.perf_counter() - began
            line = f"  {label:<26}{seconds:8.1f} s {size / seconds:8.2f} MB/s"
            if isinstance(kept, set):
                found = sum(a not in kept or b not in kept for a, b in twins.items())
                wrong, natural = false_drops(documents, innocent - kept)
                line += f"  recall {found}/{len(twins)}  false drops {wrong}/{len(innocent)}"
                line += f"  natural repeats {natural}"
            else:
                line += f"  {kept} kept"
            print(line, flush=True)
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
