"""Write every set in which something is hidden into its task's folder."""

from pathlib import Path

from .sets import GENERATED, text

for task in GENERATED:
    path = Path(__file__).parents[1] / task / "data.jsonl"
    path.write_text(text(task), encoding="utf-8")
    print(path)
