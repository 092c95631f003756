"""A data mirror that takes less time to make a corpus of."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path


def thinned(mirror: Path, folder: Path) -> Path:
    """The mirror with a tenth of its texts to pretrain on; all else is there."""
    (folder / "pretrain").mkdir(parents=True)
    for path in mirror.iterdir():
        if path.name != "pretrain":
            (folder / path.name).symlink_to(path.resolve())
    for path in (mirror / "pretrain").glob("*.jsonl.gz"):
        with gzip.open(path) as whole, gzip.open(folder / "pretrain" / path.name, "wb", 1) as part:
            part.writelines(islice(whole, 0, None, 10))
    return folder
