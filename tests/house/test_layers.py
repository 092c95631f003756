"""A file imports from its own layer or a lower one, and nothing imports in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {name: ROOT / name for name in ("model", "train", "tasks", "reports", "human_eval_ui")}
LEAVES = {"types", "errors", "fileio", "stats", "paired", "ngrams", "schema", "measures"}
CORE_LAYERS = {
    **dict.fromkeys(LEAVES | {"sandbox", "model"}, 0),
    **dict.fromkeys(
        (
            "results",
            "run_writer",
            "compare",
            "noise",
            "rules",
            "catalogue",
            "taskspec",
            "suites",
            "datasets",
            "exemplars",
            "prompts",
            "templates",
            "attribution",
            "wording",
            "metrics",
            "ranks",
            "protocol",
        ),
        1,
    ),
    **dict.fromkeys(("changepoints", "history", "trends", "crossover", "context_table"), 1),
    **dict.fromkeys(("contamination", "memorisation"), 1),
    **dict.fromkeys(("train", "tasks", "paper"), 1),
    **dict.fromkeys(("backends", "provenance", "reports", "human_eval_ui"), 2),
    **dict.fromkeys(("runner", "sessions", "gate", "promote", "explain", "perf", "lm_eval"), 3),
    "cli": 4,
    "__main__": 4,
}
# What a folder may import of the project beyond itself and the leaves.
ALLOWED = {
    "model": set(),
    "train": {"model"},
    "tasks": {"sandbox"},
    "sandbox": set(),
    "reports": {
        *("results", "compare", "metrics", "paper", "history", "trends"),
        *("crossover", "context_table", "protocol"),
    },
    "human_eval_ui": {"results", "run_writer", "metrics", "compare", "paper"},
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, links followed once."""
    found = {}
    for path in sorted((ROOT / "qwen_eval").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] not in FOLDERS:
            found[".".join(p for p in parts if p != "__init__")] = path
    for name, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = ("qwen_eval", name, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


MODULES = modules()


def imports(name: str, *, at_load: bool = False) -> Iterator[str]:
    """Modules of the project that a module imports. at_load: only those loaded with it."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    nodes: Iterator[ast.AST] = _loaded(tree) if at_load else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            target = ".".join(p for p in (base, node.module) if p)
            inner = [f"{target}.{alias.name}" for alias in node.names]
            # `from package import module` loads the package as well; only the module matters.
            wanted = [m for m in inner if m in MODULES] or [target]
        else:
            continue
        yield from (w for w in wanted if w.split(".")[0] == "qwen_eval")


def _loaded(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _loaded(node)


def area(name: str) -> str:
    """`qwen_eval.cli.run` → cli."""
    return [*name.split("."), ""][1]


def test_the_map_knows_every_area() -> None:
    assert {area(name) for name in MODULES} - {""} <= set(CORE_LAYERS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    here = area(name)
    for wanted in imports(name):
        there = area(wanted)
        if here == there or not there or not here:
            continue
        assert CORE_LAYERS[there] <= CORE_LAYERS[here], f"{name} imports {wanted} from above"
        if here in ALLOWED:
            assert there in ALLOWED[here] | LEAVES, f"{here}/ must not import {wanted}"
        elif here != "cli":
            assert there not in ("train", "reports", "human_eval_ui"), f"{name} imports {wanted}"
            if there == "model":
                assert name == "qwen_eval.backends.native", f"{name} imports {wanted}"


def test_there_is_no_cycle() -> None:
    graph = {name: set(imports(name, at_load=True)) - {name} for name in MODULES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", MODULES)
def test_folders_are_imported_by_their_package_name(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        tops = []
        if isinstance(node, ast.Import):
            tops = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            tops = [node.module.split(".")[0]]
        assert not set(tops) & set(FOLDERS), f"{name}: import qwen_eval.{tops[0]} instead"


@pytest.mark.parametrize(
    ("area_name", "banned"),
    [
        ("model", {"transformers", "lm_eval", "datasets", "pandas", "streamlit"}),
        ("tasks", {"torch", "transformers", "lm_eval", "numpy"}),
        ("reports", {"torch", "transformers"}),
        ("human_eval_ui", {"torch", "transformers"}),
    ],
)
def test_a_layer_stays_free_of_packages_that_are_not_its_own(
    area_name: str, banned: set[str]
) -> None:
    for name, path in MODULES.items():
        if area(name) != area_name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                tops = {(node.module or "").split(".")[0]}
            else:
                continue
            assert not tops & banned, f"{name} imports {tops & banned}"


@pytest.mark.parametrize("packages", [("analysis",), ("findings", "analysis")])
def test_what_votes_say_knows_no_page_and_no_database(packages: tuple[str, ...]) -> None:
    below = tuple(f"qwen_eval.human_eval_ui.{package}" for package in packages)
    found = {name for name in MODULES if name.startswith(below[0])}
    assert len(found) > 5
    for name in found:
        mine = [wanted for wanted in imports(name) if area(wanted) == "human_eval_ui"]
        assert all(wanted.startswith(below) for wanted in mine)
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            names.append(getattr(node, "module", "") or "")
            assert not {n.split(".")[0] for n in names} & {"streamlit", "sqlite3", "sqlalchemy"}
