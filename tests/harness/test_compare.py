"""Comparing two runs: what is joined, what is refused, and what is said of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_eval.compare import compare_runs
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.reports.render import SampleSet, page
from qwen_eval.reports.view import build
from qwen_eval.results import Run, SampleRecord, read_run
from qwen_eval.run_writer import RunWriter
from qwen_eval.types import RUN_PROGRAMS
from tests.harness.toys import record, run_info, task_info


def run_of(values: list[float], **info: object) -> Run:
    """A finished run of the toy task with these scores."""
    records = [record(i, value, group=f"g{i % 4}") for i, value in enumerate(values)]
    fields = {"selected": len(values), "available": len(values)} | info
    tasks = {"toy@strict": task_info(**fields)}
    return Run(Path("run"), run_info(tasks=tasks), records, finished=True)


def changed(run: Run, number: int, **fields: object) -> Run:
    samples: list[SampleRecord] = list(run.samples)
    samples[number] = replace(samples[number], **fields)  # type: ignore[arg-type]
    return replace(run, samples=samples)


A = run_of([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
B = run_of([1.0, 1.0, 0.0, 0.0, 0.0, 1.0])


def test_what_changed_is_counted_and_listed() -> None:
    (found,) = compare_runs(A, B)
    assert (found.baseline, found.candidate) == pytest.approx((4 / 6, 3 / 6))
    assert found.paired.delta == pytest.approx(-1 / 6)
    assert (found.lost, found.gained, found.left_out) == (2, 1, {"unmatched": 0, "errors": 0})
    assert [(flip.id, flip.baseline, flip.candidate) for flip in found.flips] == [
        ("0001", 0.0, 1.0),
        ("0002", 1.0, 0.0),
        ("0003", 1.0, 0.0),
    ]
    assert found.paired.clusters == 4
    json.dumps(found.to_json(), allow_nan=False)


def test_kinds_of_question_are_no_clusters() -> None:
    # As react_tools: four kinds, which as units could never be significant (2 / 2**4 = 0.125).
    def asked(value: float) -> Run:
        run = run_of([value] * 20, metric="right_decision")
        return replace(
            run, samples=[replace(s, values={"right_decision": value}) for s in run.samples]
        )

    (found,) = compare_runs(asked(1.0), asked(0.0))
    assert found.paired.clusters is None
    assert found.paired.p == pytest.approx(2 / 2**20)  # McNemar's: all twenty went down


def test_samples_are_joined_by_id_and_not_by_place() -> None:
    shuffled = list(B.samples)
    random.Random(1).shuffle(shuffled)
    one, other = compare_runs(A, B)[0], compare_runs(A, replace(B, samples=shuffled))[0]
    assert one == other


def test_failures_are_left_out_and_counted() -> None:
    (found,) = compare_runs(A, changed(B, 2, status="error", error="server down"))
    assert found.left_out == {"unmatched": 0, "errors": 1}
    assert (found.paired.n, found.lost) == (5, 1)


def test_what_a_recipe_excludes_is_no_failure_unless_in_one_run_alone() -> None:
    a, b = (changed(run, 2, status="excluded", values={}) for run in (A, B))
    (found,) = compare_runs(a, b)
    assert found.left_out == {"unmatched": 0, "errors": 0, "excluded": 1}
    assert (found.paired.n, found.lost) == (5, 1)
    (found,) = compare_runs(A, b)
    assert found.left_out == {"unmatched": 0, "errors": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data_kind", "sample"),
        ("data_digest", "other"),
        ("metric", "f1"),
        ("scorer", "exact"),
        ("recipe_version", 2),
        ("version", 2),
        ("solver", "choice"),
        ("selected", 5),
    ],
)
def test_what_is_not_comparable_is_refused_by_name(field: str, value: object) -> None:
    other = run_of([1.0] * 6, **{field: value})
    with pytest.raises(
        RefusedError, match=rf"toy@strict: not comparable: {field} is .*{value} here"
    ):
        compare_runs(A, other)
    if field != "metric":
        (found,) = compare_runs(A, other, allow=[field])
        assert found.differing == (field,)


@pytest.mark.parametrize("solver", sorted(RUN_PROGRAMS))
def test_other_prompts_and_other_isolation_are_refused(solver: str) -> None:
    with pytest.raises(RefusedError, match="prompts is 6 items there, 1 asked in other words"):
        compare_runs(A, changed(B, 0, text="asked otherwise"))
    with pytest.raises(RefusedError, match="prompts is 6 items there, 1 asked in other words"):
        compare_runs(A, changed(B, 0, prefix="other exemplars"))
    code = [
        replace(run, info=replace(run.info, isolation=way))
        for run, way in ((A, "rung A"), (B, "rung C"), (B, "none"))
    ]
    assert compare_runs(code[0], code[2])
    tasks = {"toy@strict": task_info(solver=solver, selected=6)}
    code = [replace(run, info=replace(run.info, tasks=tasks)) for run in code]
    assert compare_runs(code[0], code[1]), "a verdict is the same on every rung"
    with pytest.raises(RefusedError, match="isolation is contained there, none here"):
        compare_runs(code[0], code[2])


def test_no_common_task_and_no_common_item() -> None:
    other = replace(B, info=replace(B.info, tasks={"new@strict": task_info(recipe="new@strict")}))
    with pytest.raises(RefusedError, match="no task in common: toy@strict there, new@strict here"):
        compare_runs(A, other)
    strangers = [replace(r, id=f"x{r.id}") for r in B.samples]
    with pytest.raises(RefusedError, match="no item has a score in both"):
        compare_runs(A, replace(B, samples=strangers))


def test_an_unfinished_run_is_refused() -> None:
    with pytest.raises(RefusedError, match="run is not finished"):
        compare_runs(A, replace(B, finished=False))
    assert compare_runs(A, replace(B, finished=False), allow=["unfinished"])


def test_a_narrow_margin_is_noise_where_both_have_it() -> None:
    narrow, wide = {"margin": 1e-4}, {"margin": 0.5}
    first = changed(changed(A, 1, detail=narrow), 2, detail=narrow)
    second = changed(changed(B, 1, detail=narrow), 2, detail=wide)
    (found,) = compare_runs(first, second)
    assert [flip.in_noise for flip in found.flips] == [True, False, False]


@pytest.mark.parametrize(
    ("dtypes", "margin", "inside"),
    [
        (("float32", "float32"), 3.9e-4, True),  # each of the two best options moves by 2e-4
        (("float32", "float32"), 4.1e-4, False),
        (("float32", "bfloat16"), 0.24, True),  # the coarser of the two decides
        (("bfloat16", "float32"), 0.26, False),
    ],
)
def test_how_narrow_a_margin_is_noise(dtypes: tuple[str, str], margin: float, inside: bool) -> None:
    pair = [
        replace(changed(run, 1, detail={"margin": margin}),
                info=replace(run.info, model=run.info.model | {"dtype": dtype}))
        for run, dtype in zip((A, B), dtypes, strict=True)
    ]  # fmt: skip
    (found,) = compare_runs(*pair)
    assert found.flips[0].in_noise is inside


def test_the_smallest_drop_that_would_show() -> None:
    from statistics import NormalDist

    from qwen_eval.stats import detectable_difference

    reach = NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)
    (found,) = compare_runs(A, B)
    assert found.paired.clusters
    assert found.detectable == pytest.approx(reach * found.paired.error)
    (same,) = compare_runs(A, A)
    assert same.detectable == detectable_difference(6, 1 / 7) > 0


def test_tasks_are_named_with_or_without_their_recipe() -> None:
    for name in ("toy", "toy@strict"):
        assert [one.task for one in compare_runs(A, B, tasks=[name])] == ["toy@strict"]
    with pytest.raises(UserError, match="the runs share toy@strict, none of those named"):
        compare_runs(A, B, tasks=["mmlu"])


def test_many_tasks_are_held_to_holms_level() -> None:
    from qwen_eval.paired import holm

    names = [f"t{i}@strict" for i in range(5)]
    dice = random.Random(2)
    runs = []
    for _ in range(2):
        records = [
            record(i, float(dice.random() < 0.5), task=name) for name in names for i in range(40)
        ]
        tasks = {name: task_info(recipe=name, selected=40) for name in names}
        runs.append(Run(Path("r"), run_info(tasks=tasks), records, finished=True))
    found = compare_runs(*runs)
    assert [one.p_adjusted for one in found] == holm([one.paired.p for one in found])


# --- the files --------------------------------------------------------------------------------


def written(folder: Path) -> Path:
    writer = RunWriter(folder, run_info(), ["header "])
    for number in range(3):
        writer.add(record(number))
    writer.finish([("toy@strict", f"{i:04x}") for i in range(3)], {"schema": 1, "tasks": {}})
    writer.close()
    return folder


def test_a_run_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    assert read_run(folder).finished
    path = folder / "samples.jsonl"
    path.write_text(path.read_text().replace('"accuracy": 1.0', '"accuracy": 0.0', 1))
    with pytest.raises(UserError, match=r"samples\.jsonl: damaged since the run ended"):
        read_run(folder)


def test_a_future_schema_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    (folder / "DONE").unlink()
    assert not read_run(folder).finished
    path = folder / "run.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(UserError, match="of schema 9, this version reads 1"):
        read_run(folder)


def damaged(good: Path, folder: Path, times: int) -> Iterator[None]:
    """The run again and again in `folder`, each time with one file cut, flipped, gone, without a
    key or another file's."""
    files = {path.name: path.read_bytes() for path in good.iterdir()}
    folder.mkdir()
    dice = random.Random(7)
    for _ in range(times):
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
        name = dice.choice(sorted(files))
        broken = bytearray(files[name])
        damage = dice.choice(["cut", "flip", "delete", "key", "swap"])
        if damage == "cut":
            del broken[dice.randrange(len(broken)) :]
        elif damage == "flip":
            broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        elif damage == "swap":
            broken = bytearray(files[dice.choice([n for n in files if n != name])])
        elif damage == "key":
            keys = [i for i, byte in enumerate(broken) if byte == ord('"')]
            broken[dice.choice(keys)] = ord("'")
        if damage == "delete":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(broken)
        yield


@pytest.mark.slow
def test_damaged_runs_are_refused_and_never_pass(tmp_path: Path) -> None:
    """An error of ours, whatever the damage."""
    folder = tmp_path / "bad"
    for _ in damaged(written(tmp_path / "good"), folder, 1000):
        with pytest.raises((UserError, RefusedError)) as caught:
            compare_runs(read_run(folder), read_run(folder))
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_damaged_runs_are_never_a_reports_traceback(tmp_path: Path) -> None:
    """Those that are not finished, so that no digest protects them: refused, or shown as far as
    they can be read."""
    good = written(tmp_path / "good")
    for name in ("DONE", "metrics.json"):
        (good / name).unlink()
    folder, shown, refused = tmp_path / "bad", 0, []
    for _ in damaged(good, folder, 1000):
        try:
            report = build([read_run(folder)])
        except UserError as error:
            refused.append(str(error))
        else:
            shown += bool(page(report, SampleSet()))
    assert shown > 100
    assert len(refused) > 300
    assert not any("\n" in line for line in refused)
