"""Files of JSON lines for datatrove, whose own reader and writer want a further package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from datatrove.pipeline.readers.base import BaseDiskReader
from datatrove.pipeline.writers.disk_base import DiskWriter


class Reader(BaseDiskReader):  # type: ignore[misc]
    """Every line a document."""

    name = "lines"

    def read_file(self, filepath: str) -> Iterator[Any]:
        with self.data_folder.open(filepath, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file):
                document = self.get_document_from_dict(json.loads(line), filepath, number)
                if document:
                    yield document


class Writer(DiskWriter):  # type: ignore[misc]
    """A file for every task."""

    name = "lines"
    default_output_filename = "${rank}.jsonl"

    def _write(self, document: dict[str, Any], file_handler: Any, _: str) -> None:
        file_handler.write(json.dumps(document) + "\n")
