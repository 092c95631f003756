"""Recipes of training: a file of the user's, or one that comes with the package."""

from __future__ import annotations

from pathlib import Path

from qwen_eval.errors import UserError


def find_recipe(name: str, kind: str) -> Path:
    """`NAME` or a path → the recipe's file. kind: the folder of ours. Raises UserError."""
    path = Path(name)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    from qwen_eval import train

    ours = Path(train.__path__[0]) / "recipes" / kind
    found = ours / f"{name}.yaml"
    if not found.is_file():
        names = ", ".join(sorted(path.stem for path in ours.glob("*.yaml")))
        raise UserError(f"RECIPE {name}: no such file; recipes of ours: {names}")
    return found
