"""The text of a web page, without what stands around it: trafilatura's extraction.

Source: Barbaresi 2021, ACL demo track (trafilatura); precision is favoured over recall, since a
menu that slips into a corpus is repeated a million times there.
"""

from __future__ import annotations

import logging


def main_text(page: str) -> str:
    """The main text of an HTML page; empty where none is found."""
    from trafilatura import extract

    if not page.strip():
        return ""
    # A page without text is an answer here; the library would print a line for each.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    found = extract(
        page,
        favor_precision=True,
        include_comments=False,
        include_tables=True,
        include_images=False,
        include_links=False,
        deduplicate=False,
    )
    return found or ""
