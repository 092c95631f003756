"""Our filters inside a datatrove pipeline drop what they drop outside (where it is installed)."""

from __future__ import annotations

import os
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl
from qwen_eval.train.data.decontaminate import known_tests
from qwen_eval.train.data.dedup import Exact, Method, Near
from qwen_eval.train.data.minhash import FuzzySettings
from qwen_eval.train.data.pipeline import Pipeline
from qwen_eval.train.data.recipe import Recipe, read_recipe
from qwen_eval.train.data.shards import read_shard
from qwen_eval.train.data.stage import Folder
from qwen_eval.train.data.steps import language_filter, rule_filter
from tests.train.toy_corpus import FOREIGN, PARAGRAPH, SHORT, write_corpus

pytest.importorskip("datatrove")


def test_steps_of_ours_run_in_a_pipeline_of_theirs(tmp_path: Path) -> None:
    from datatrove.data import Document

    from qwen_eval.train.data.on_datatrove import CleanStep, FilterStep

    recipe = read_recipe(write_corpus(tmp_path))
    assert recipe.languages is not None
    texts = [PARAGRAPH * 3 + "\x00caf\u00c3\u00a9", FOREIGN, SHORT]
    documents = [Document(text, str(i), metadata={"source": "en"}) for i, text in enumerate(texts)]
    pipeline = [
        CleanStep(),
        FilterStep("language", partial(language_filter, recipe.languages)),
        FilterStep("rules", partial(rule_filter, recipe.rules, recipe.sources)),
    ]
    data = iter(documents)
    for step in pickle.loads(pickle.dumps(pipeline)):
        data = step.run(data)
    kept = list(data)
    assert [one.id for one in kept] == ["0"]
    assert kept[0].text.endswith("café")
    assert kept[0].metadata["lang"] == "en"


def test_a_drop_has_its_reason() -> None:
    from datatrove.data import Document

    from qwen_eval.train.data.on_datatrove import FilterStep

    step = FilterStep("x", lambda: lambda document: ("rules", "words < 3"))
    assert step.filter(Document("a", "1")) == (False, "rules: words < 3")


NEAR = Near(FuzzySettings())
FILES = ("en0.jsonl", "en1.jsonl", "en2.jsonl", "zh.jsonl")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with repeats within and between them, and below `out` what our pipeline keeps."""
    folder: Path = tmp_path_factory.mktemp("data")
    write_corpus(folder)
    recipe = Recipe.model_validate(
        {"sources": {"all": {"files": FILES, "lang": "xx"}}, "fuzzy": {}, "pack": {"length": 64}}
    )
    Pipeline(recipe, folder, folder / "out", known_tests({}), 1 << 28, 1, lambda *_: None).run()
    (folder / "texts").mkdir()
    for name in FILES:
        (folder / name).rename(folder / "texts" / name)
    return folder


def pipelines(texts: Path, out: Path, method: Method, clean: bool) -> list[list[Any]]:
    """Sign, find and drop; what is dropped goes to a folder too."""
    from qwen_eval.train.data.on_datatrove import CleanStep, DropRepeats, FindRepeats, SignRepeats
    from tests.train.trove_files import Reader, Writer

    read: list[Any] = [Reader(str(texts)), *([CleanStep()] if clean else [])]
    drop = DropRepeats(out / "signed", method, Writer(str(out / "dropped")))
    return [
        [*read, SignRepeats(out / "signed", method)],
        [FindRepeats(out / "signed", method)],
        [*read, drop, Writer(str(out / "kept"))],
    ]


def run_locally(texts: Path, out: Path, method: Method, tasks: int, clean: bool = False) -> None:
    from datatrove.executor import LocalPipelineExecutor

    for number, pipeline in enumerate(pipelines(texts, out, method, clean)):
        count = 1 if number == 1 else tasks
        logs = str(out / f"logs{number}")
        LocalPipelineExecutor(pipeline, count, workers=1, logging_dir=logs).run()


def kept_by_us(corpus: Path, stage: str) -> list[tuple[str, str]]:
    """(where it stood, text) of every document."""
    documents = [d for path in Folder(corpus / "out" / stage).kept() for d in read_shard(path)]
    return sorted((one.metadata["origin"], one.text) for one in documents)


def kept_by_them(out: Path) -> list[tuple[str, str]]:
    """The same; they number rows from 0."""
    found = []
    for document in (one for path in (out / "kept").iterdir() for one in read_jsonl(path)):
        name, _, row = document["id"].rpartition("/")
        found.append((f"{name}#{int(row) + 1}", document["text"]))
    return sorted(found)


@pytest.mark.parametrize("tasks", [1, 3, pytest.param(6, marks=pytest.mark.slow)])
def test_repeats_are_those_of_our_pipeline(corpus: Path, tmp_path: Path, tasks: int) -> None:
    run_locally(corpus / "texts", tmp_path / "exact", Exact(), tasks, clean=True)
    exact = kept_by_us(corpus, "2-exact")
    assert kept_by_them(tmp_path / "exact") == exact
    # The files now hold what several of the first files held: their names still say the order.
    run_locally(tmp_path / "exact" / "kept", tmp_path / "near", NEAR, tasks)
    near = kept_by_us(corpus, "3-fuzzy")
    assert kept_by_them(tmp_path / "near") == near
    assert len(near) < len(exact)
    dropped = [one for p in (tmp_path / "near" / "dropped").iterdir() for one in read_jsonl(p)]
    assert len(dropped) == len(exact) - len(near)
    assert {d["metadata"]["filter_reason"] for d in dropped} == {"fuzzy: nearly the same text"}


def test_what_was_not_signed_is_refused(corpus: Path, tmp_path: Path) -> None:
    from qwen_eval.train.data.on_datatrove import DropRepeats, FindRepeats, SignRepeats

    reader = pipelines(corpus / "texts", tmp_path, NEAR, False)[0][0]
    signed = tmp_path / "signed"
    sign, drop = SignRepeats(signed, Exact()), DropRepeats(signed, Exact())
    find = FindRepeats(signed, Exact())
    list(sign.run(reader.run(rank=0, world_size=2), 0, 2))
    with pytest.raises(UserError, match="task 1 has not signed"):
        list(find.run())
    with pytest.raises(UserError, match="give tasks=1"):
        list(find.run(None, 0, 2))
    list(sign.run(reader.run(rank=1, world_size=2), 1, 2))
    list(find.run())
    with pytest.raises(UserError, match="signed by 2 tasks, not 3"):
        list(drop.run(reader.run(rank=0, world_size=3), 0, 3))
    with pytest.raises(UserError, match="task 0 did not read what it had signed"):
        list(drop.run(reader.run(rank=1, world_size=2), 0, 2))
    assert len(list(drop.run(reader.run(rank=0, world_size=2), 0, 2))) > 40


SBATCH = """\
#!/bin/sh
# Runs a job at once where Slurm would queue it: every task of its array, one after the other.
for last; do :; done
case "$(cat $last)" in *merge_stats*) echo Submitted batch job 9; exit;; esac
end=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' $last)
for task in $(seq 0 $end); do
  SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here sh $last >&2 || exit 1
done
echo Submitted batch job 7
"""


@pytest.mark.slow
def test_slurm_jobs_do_the_same(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real executor, scripts and pickles; only sbatch and scontrol are stand-ins."""
    from datatrove.executor import SlurmPipelineExecutor

    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in {"sbatch": SBATCH, "scontrol": "#!/bin/sh\necho here\n"}.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    path = os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"]))
    monkeypatch.setenv("PATH", path)
    # The reader's pickle names this module.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    before = None
    for number, pipeline in enumerate(pipelines(corpus / "texts", tmp_path, Exact(), True)):
        before = SlurmPipelineExecutor(
            pipeline,
            tasks=1 if number == 1 else 2,
            time="00:10:00",
            partition="cpu",
            logging_dir=str(tmp_path / f"logs{number}"),
            depends=before,
            with_srun=False,
        )
    assert before is not None
    before.run()
    script = (tmp_path / "logs0" / "launch_script.slurm").read_text()
    assert "#SBATCH --array=0-1" in script
    assert kept_by_them(tmp_path) == kept_by_us(corpus, "2-exact")


def test_ray_is_handed_what_can_be_sent(corpus: Path, tmp_path: Path) -> None:
    """Ray pickles the executor, with all its steps, for every worker."""
    dill = pytest.importorskip("dill")
    from datatrove.executor.ray import RayPipelineExecutor

    done = []
    for number, pipeline in enumerate(pipelines(corpus / "texts", tmp_path, Exact(), True)):
        tasks = 1 if number == 1 else 2
        made = RayPipelineExecutor(pipeline, tasks, logging_dir=str(tmp_path / f"logs{number}"))
        sent = dill.loads(dill.dumps(made))
        # What a worker of Ray's calls for each rank.
        done += [sent._run_for_rank(rank) for rank in range(sent.world_size)]
    assert len(done) == 5
    assert kept_by_them(tmp_path) == kept_by_us(corpus, "2-exact")
