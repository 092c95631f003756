"""All stages of a corpus in the paper's order, each resumed where it was left.

read (HTML to text, encoding, language) -> exact repeats -> near-repeats -> rules and scorers ->
held out for measuring -> instructions (read, decontaminated) -> tokens -> packed shards. A stage's
key is a hash of its own settings and of the key before it; the first hashes the files. Knows
nothing of command lines.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_eval.fileio import file_hash, write_atomic

from . import mixture, pack, steps
from .decontaminate import KnownTests
from .dedup import Exact, Method, Near
from .pace import Tick, counted, shown
from .recipe import Recipe, Source, digest, find_files
from .scorers import load_scorer
from .shards import beside, load_array, save_array
from .stage import Folder, Unit, locked, processes, run_units, unit_names

# Part of every key: raised when a stage would make other bytes of the same input.
FORMAT = 1
# Those that sort documents into kept and dropped.
STAGES = ("1-read", "2-exact", "3-fuzzy", "4-filter", "5-heldout", "6-instructions")
HELD_OUT = "5-heldout"
PACKED = "packed"
HASHING = "hash"


@dataclass
class Pipeline:
    """A recipe with all it needs.

    data: where the recipe's files are. out: gets a folder for each stage, and `packed`. tests: the
    n-grams that instructions must not have. memory: bytes for sorting. tick: is told how far every
    phase is. Neither memory nor workers change what is made.
    """

    recipe: Recipe
    data: Path
    out: Path
    tests: KnownTests
    memory: int
    workers: int
    tick: Tick
    _pool: Executor | None = field(default=None, init=False, repr=False)

    def run(self) -> None:
        """Run what is not yet done. Raises UserError for what is wrong with files or disk."""
        self._check()
        with locked(self.out), processes(self.workers) as self._pool:
            self._run_stages()

    def _check(self) -> None:
        """Find what is missing before hours of work, not after them."""
        recipe = self.recipe
        pack.open_encoder(recipe.pack.tokenizer)
        for scorer in recipe.scorers:
            load_scorer(self._scorer(scorer.file))
        for name, of in {**recipe.sources, **recipe.instructions}.items():
            find_files(of.files, self.data, f"source {name}")

    def _run_stages(self) -> None:
        recipe = self.recipe
        key, shards = self._read("1-read", recipe.sources, [recipe.languages])
        if recipe.exact:
            key, shards = self._dedup("2-exact", Exact(), key, shards)
        if recipe.fuzzy is not None:
            key, shards = self._dedup("3-fuzzy", Near(recipe.fuzzy), key, shards)
        key, shards = self._filter(key, shards)
        if recipe.heldout:
            key, shards = self._hold_out(key, shards)
        if recipe.instructions:
            other, more = self._read("6-instructions", recipe.instructions, [self.tests])
            key, shards = digest(key, other), [*shards, *more]
        self._pack(*self._tokenise(key, shards))

    def folder(self, name: str) -> Folder:
        """The folder of a stage."""
        return Folder(self.out / name)

    def _read(
        self, name: str, sources: dict[str, Source], filters: Sequence[Any]
    ) -> tuple[str, list[Path]]:
        folder, units, hashed = self.folder(name), dict[str, Unit](), []
        checks = [one for one in filters if one is not None]
        for source, of in sources.items():
            files = find_files(of.files, self.data, f"source {source}")
            size = sum(path.stat().st_size for path in files)
            with shown(f"{HASHING} {source}", size, self.tick):
                for number, path in enumerate(files):
                    unit = f"{len(units):05}-{source}-{number:05}"
                    origin = str(path.relative_to(self.data))
                    units[unit] = (path, folder, unit, origin, source, of, checks)
                    hashed.append([source, origin, file_hash(path, counted)])
        settings = {name: [of.format, of.lang] for name, of in sources.items()}
        said = [one.digest() if isinstance(one, KnownTests) else one for one in checks]
        key = digest(FORMAT, name, hashed, settings, said)
        if not folder.open(key):
            self._work(steps.read_unit, units, folder)
            folder.finish()
        return key, folder.kept()

    def _dedup(
        self, name: str, method: Method, before: str, shards: list[Path]
    ) -> tuple[str, list[Path]]:
        folder = self.folder(name)
        key = digest(FORMAT, method.name, *method.settings(), before)
        if not folder.open(key):
            names, signatures = unit_names(shards), folder.path / "signatures"
            stems = {unit: signatures / unit for unit in names}
            drops = folder.path / "drops.npy"
            if not drops.exists():
                signatures.mkdir(exist_ok=True)
                units = {u: (s, stems[u], method) for u, s in zip(names, shards, strict=True)}
                done = {unit: method.signed(stem) for unit, stem in stems.items()}
                self._run(steps.sign_unit, units, f"{name} sign", done)
                size = sum(path.stat().st_size for path in done.values())
                with shown(f"{name} compare", size, self.tick):
                    save_array(drops, method.find(list(stems.values()), self.memory))
            self._work(
                steps.drop_unit,
                {
                    unit: (shard, folder, unit, number, drops, method)
                    for number, (unit, shard) in enumerate(zip(names, shards, strict=True))
                },
                folder,
                f"{name} drop",
            )
            shutil.rmtree(signatures, ignore_errors=True)
            folder.finish()
        return key, folder.kept()

    def _filter(self, before: str, shards: list[Path]) -> tuple[str, list[Path]]:
        recipe, folder = self.recipe, self.folder("4-filter")
        named = {name: of.rules for name, of in recipe.sources.items()}
        scorers = [[one, file_hash(self._scorer(one.file))] for one in recipe.scorers]
        key = digest(FORMAT, "filter", recipe.rules, named, scorers, before)
        if not folder.open(key):
            common = (recipe.rules, recipe.sources, recipe.scorers, self.data)
            units = {
                name: (shard, folder, name, *common)
                for name, shard in zip(unit_names(shards), shards, strict=True)
            }
            self._work(steps.filter_unit, units, folder)
            folder.finish()
        return key, folder.kept()

    def _hold_out(self, before: str, shards: list[Path]) -> tuple[str, list[Path]]:
        recipe, folder = self.recipe, self.folder(HELD_OUT)
        key = digest(FORMAT, "heldout", recipe.heldout, recipe.seed, before)
        if not folder.open(key):
            units = {
                name: (shard, folder, name, recipe.heldout, recipe.seed)
                for name, shard in zip(unit_names(shards), shards, strict=True)
            }
            self._work(steps.hold_out_unit, units, folder)
            folder.finish()
        return key, folder.kept()

    def _scorer(self, file: str) -> Path:
        return find_files([file], self.data, "scorers")[0]

    def _tokenise(self, before: str, shards: list[Path]) -> tuple[str, list[Path]]:
        recipe, folder = self.recipe, self.folder("7-tokens")
        encoder = pack.open_encoder(recipe.pack.tokenizer)
        sources = tuple({**recipe.sources, **recipe.instructions})
        key = digest(FORMAT, "tokens", encoder.fingerprint, list(sources), before)
        stems = [folder.path / name for name in unit_names(shards)]
        if not folder.open(key, parts=()):
            units = {
                stem.name: (shard, stem, sources, recipe.pack.tokenizer)
                for stem, shard in zip(stems, shards, strict=True)
            }
            done = {stem.name: beside(stem, pack.TABLE) for stem in stems}
            self._run(steps.tokenise_unit, units, folder.name, done)
            write_atomic(folder.path / "DONE", "")
        return key, stems

    def _pack(self, before: str, stems: list[Path]) -> None:
        recipe, folder = self.recipe, self.folder(PACKED)
        settings = recipe.pack
        sources = {**recipe.sources, **recipe.instructions}
        often = [source.repeat for source in sources.values()]
        key = digest(
            FORMAT, "pack", settings.length, settings.shard_sequences, often, recipe.seed, before
        )
        if folder.open(key, parts=()):
            return
        encoder = pack.open_encoder(settings.tokenizer)
        tables = [load_array(beside(stem, pack.TABLE), mapped=True) for stem in stems]
        shares = mixture.shares(tables, list(sources), often, recipe.seed)
        size = sum(share["seen_tokens"] for share in shares.values())
        size *= int(pack.token_type(encoder.vocab_size)[-1])
        with shown(PACKED, size, self.tick):
            ordered = mixture.order(tables, often, recipe.seed, self.memory)
            content = pack.pack(
                folder.path, stems, ordered, encoder, settings.length, settings.shard_sequences
            )
        pack.copy_tokenizer(settings.tokenizer, folder.path)
        content |= {"sources": shares, "seed": recipe.seed, "key": key, "tests": self._tests()}
        pack.write_manifest(folder.path, encoder, settings.length, content)
        write_atomic(folder.path / "DONE", "")

    def _tests(self) -> dict[str, dict[str, int]]:
        """The test sets that instructions were held against, and rows that could not be seen."""
        tests = self.tests
        return {n: {"rows": tests.rows[n], "too_short": tests.short[n]} for n in tests.names}

    def _work(self, work: Any, units: dict[str, Unit], folder: Folder, phase: str = "") -> None:
        """Units that end in counts."""
        counts = {name: folder.path / "counts" / f"{name}.json" for name in units}
        self._run(work, units, phase or folder.name, counts)

    def _run(self, work: Any, units: dict[str, Unit], phase: str, ends: dict[str, Path]) -> None:
        """Units that are finished where the file that ends them is there."""
        run_units(
            work,
            units,
            lambda name: ends[name].exists(),
            phase=phase,
            pool=self._pool,
            tick=self.tick,
        )
