"""Which of this machine's files a program may see, and where: plain data for the layers."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable
from typing import TypedDict

PYTHON = "/python"
PACKAGES = "/packages"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_ZONES = "/usr/share/zoneinfo"


class Layout(TypedDict):
    """A program's file system, as far as it shows this machine's: plain data, place by place."""

    shown: dict[str, str]
    """place -> the folder, file or device of this machine that is seen there, read-only"""
    links: dict[str, str]
    """place -> where that symbolic link leads"""
    covered: list[str]
    """folders inside `shown` that look empty: where packages are installed"""


def layout(packages: Iterable[str] = ()) -> Layout:
    """The standard library, the shared libraries its extension modules load, and of all installed
    packages those that are named, with what they require.

    Reads folders with thousands of entries: make it once, not for each program. Raises
    importlib.metadata.PackageNotFoundError for a package that is not installed.
    """
    shown = {place: place for place in (*_DEVICES, _ZONES) if os.path.exists(place)}
    links = {}
    for folder in _library_folders():
        top = "/" + folder.split("/")[1]
        if os.path.islink(top):
            links[top] = os.readlink(top)
        elif os.path.isdir(folder):
            shown[folder] = folder
    # Nothing else of the prefix: conda keeps other environments there, /usr keeps everything.
    prefix = sys.base_prefix
    parts = [f"{prefix}/{name}" for name in {"lib", sys.platlibdir}]
    if prefix == "/usr":
        parts = [os.path.dirname(os.__file__)]
    for folder in filter(os.path.isdir, parts):
        shown[PYTHON + folder[len(prefix) :]] = folder
    # site-packages and dist-packages, of this Python and of all others that share the folder.
    covered = [
        place + found[len(folder) :]
        for place, folder in shown.items()
        for level in ("", "python*/")
        for found in glob.glob(f"{glob.escape(folder)}/{level}*-packages")
        if os.path.isdir(found) and not os.path.islink(found)
    ]
    for path in _installed(packages):
        shown[f"{PACKAGES}/{os.path.basename(path)}"] = path
    return {"shown": shown, "links": links, "covered": covered}


def readable(layout: Layout) -> list[str]:
    """The paths of this machine that make up a layout, with none of what it covers: for a program
    that keeps the machine's own root. A folder that holds something covered is given entry by
    entry."""
    hidden = {
        layout["shown"][place] + cover[len(place) :]
        for cover in layout["covered"]
        for place in layout["shown"]
        if cover.startswith(place + "/")
    }
    paths = list(layout["shown"].values())
    for cover in hidden:
        while any(cover == path or cover.startswith(path + "/") for path in paths):
            holder = next(p for p in paths if cover == p or cover.startswith(p + "/"))
            paths.remove(holder)
            if holder != cover:
                paths += [entry.path for entry in os.scandir(holder)]
    return paths


def _library_folders() -> tuple[str, ...]:
    """The loader's own folders: as Debian, as Fedora, or as all others have them."""
    triplet = f"{os.uname().machine}-linux-gnu"
    if os.path.isdir(f"/usr/lib/{triplet}"):
        return f"/usr/lib/{triplet}", f"/lib/{triplet}"
    if os.path.exists("/usr/lib64/libc.so.6") and not os.path.islink("/usr/lib64"):
        return "/usr/lib64", "/lib64"
    return "/usr/lib", "/lib"


def _installed(packages: Iterable[str]) -> list[str]:
    """The top folders and files of packages and of all that they require, each once."""
    from importlib import metadata  # large, and not needed inside, where this module is read too

    waiting, known, found = list(packages), set(), set()
    wanted = set(waiting)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in known:
            continue
        known.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in wanted:
                raise
            continue  # required on other systems or Pythons only
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__"):
                found.add(os.path.abspath(str(distribution.locate_file(top))))
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return sorted(path for path in found if os.path.exists(path))
