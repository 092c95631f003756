"""A search for the windows of layers: which schedule keeps fewest keys and reads as well as none.

    python -m bench.windows --model tiny --data ../shared/data --language en

Section 2.5 of the paper gives lower layers shorter windows than higher ones and names no sizes.
Here layers, from the lowest up, form bands of equal count, each band has one window, and windows do
not fall with height; a window is a quarter, a half, one or two times the trained length S, or full.
NTK and LogN are on. Half of the long works chooses, and the other half says what the choice is
worth, beside the same windows upside down, S in every layer, and the bare model.

1. Each band is narrowed alone, in texts of length S: what loses more than the margin is left out.
2. Of the schedules that remain, fewest keys first, the first one that loses no more than the margin
   against full attention at any length is the winner.

Perplexity is over the same tokens at every length, read in pieces of that length.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from statistics import fmean

import torch

from qwen_eval.cli.names import resolve
from qwen_eval.fileio import read_jsonl
from qwen_eval.model.config import load_config
from qwen_eval.model.engine import Engine, ScoreTokens
from qwen_eval.model.fused import fuse
from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.model.weights import load_model
from qwen_eval.model.windows import SINKS, in_bands
from qwen_eval.stats import mean_interval

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GRID = (0.25, 0.5, 1, 2, math.inf)  # in trained lengths
FRONT_MATTER = 20_000  # characters at a work's beginning that are not read
Windows = tuple[float, ...]  # of bands in trained lengths, or of layers in tokens; inf is full


@dataclass(frozen=True)
class Setting:
    """How a text is read: the windows of the layers, and whether NTK and LogN are on."""

    windows: Windows
    switches: bool = True


@dataclass(frozen=True)
class Reading:
    """Mean nats per token of every document, and the processor's seconds for all of them."""

    nats: list[float]
    seconds: float

    @property
    def perplexity(self) -> float:
        """Every document weighs the same."""
        return math.exp(fmean(self.nats))


class Reader:
    """Reads documents of token ids in pieces of a given length, each combination once."""

    def __init__(self, folder: Path, documents: list[list[int]], start: int, dtype: str) -> None:
        self._folder, self._documents, self._start = folder, documents, start
        self._dtype, self._config = DTYPES[dtype], load_config(folder)
        self._known: dict[tuple[int, Setting], Reading] = {}

    def read(self, setting: Setting, length: int) -> Reading:
        """Every document at a length.

        A window that no token fills is full attention, and up to S the switches do nothing.
        """
        clipped = tuple(w if w < length else math.inf for w in setting.windows)
        on = setting.switches or length <= self._config.trained_length
        key = length, Setting(clipped, on)
        if key not in self._known:
            self._known[key] = self._measured(key[1], length)
        return self._known[key]

    def change(self, setting: Setting, length: int, against: Setting) -> list[float]:
        """By how much the nats per token of each document differ from another setting's."""
        pairs = zip(self.read(setting, length).nats, self.read(against, length).nats, strict=True)
        return [a - b for a, b in pairs]

    def _measured(self, setting: Setting, length: int) -> Reading:
        windows = tuple(None if math.isinf(w) else int(w) for w in setting.windows)
        config = replace(
            self._config,
            ntk=setting.switches,
            logn=setting.switches,
            windows=windows if any(windows) else (),
            sinks=SINKS if any(windows) else 0,
            max_length=max(length, self._config.max_length),
        )
        model = fuse(load_model(self._folder, self._dtype, config=config))
        engine = Engine(model, max_sequences=2, prefixes=False)
        engine.run([ScoreTokens((self._start,) * 64)])  # what is tried once, outside the clock
        began, nats = time.process_time(), []
        for ids in self._documents:
            pieces = [ids[at : at + length - 1] for at in range(0, len(ids), length - 1)]
            logprobs: list[float] = []
            for piece in pieces:
                [scores] = engine.run([ScoreTokens((self._start, *piece))])
                logprobs += scores  # type: ignore[arg-type]
            nats.append(-fmean(logprobs))
        return Reading(nats, time.process_time() - began)


def spread(bands: Windows, layers: int, trained: int) -> Windows:
    """The window of every layer in tokens, of those of the bands in trained lengths."""
    return tuple(share * trained for share in in_bands(bands, layers))


def kept(windows: Windows, length: int) -> float:
    """Keys that stay cached behind a text of this length, as a share of full attention's."""
    return fmean(min(w, length) / length for w in windows)


def named(windows: Windows) -> str:
    """As --window-sizes takes them."""
    return ",".join("full" if math.isinf(w) else f"{w:.0f}" for w in windows)


class Search:
    """Finds the schedule; prints what it tries."""

    def __init__(self, reader: Reader, options: argparse.Namespace, lengths: list[int]) -> None:
        config = load_config(options.model)
        self._layers, self._trained = config.num_layers, config.trained_length
        self._reader, self._lengths, self._reverse = reader, lengths, options.reverse
        self._bands, self._margin = min(options.bands, self._layers), options.margin
        self._full = Setting((math.inf,) * self._layers)

    def run(self) -> Windows:
        """Windows of the layers of the first admissible schedule, fewest keys first."""
        print(f"{'windows of the bands, in S':28}" + heads(self._lengths))
        self._admissible((math.inf,) * self._bands, self._lengths)
        grids = [self._allowed(band) for band in range(self._bands)]
        orders = [b for b in product(*grids) if list(b) == sorted(b, reverse=self._reverse)]
        orders.sort(key=lambda b: kept(self._spread(b), self._lengths[-1]))
        return self._spread(next(b for b in orders if self._admissible(b, self._lengths)))

    def _allowed(self, band: int) -> list[float]:
        """Windows that this band alone can have in a text of length S."""
        alone = [math.inf] * self._bands
        for i, window in enumerate(GRID):
            alone[band] = window
            if window >= 1 or self._admissible(tuple(alone), [self._trained]):
                return list(GRID[i:])
        raise AssertionError("full attention is no worse than itself")

    def _admissible(self, bands: Windows, lengths: Sequence[int]) -> bool:
        setting = Setting(self._spread(bands))
        line = f"{', '.join('full' if math.isinf(b) else f'{b:g}' for b in bands):28}"
        worst, last = 0.0, self._lengths[-1]
        for length in lengths:
            line += f"{self._reader.read(setting, length).perplexity:9.2f}"
            worst = fmean(self._reader.change(setting, length, self._full))
            if worst > math.log1p(self._margin):
                break
        seconds, share = self._reader.read(setting, length).seconds, kept(setting.windows, last)
        print(f"{line}   keys {share:4.0%}, {seconds:.1f} s at {length}, "
              f"{math.expm1(worst):+.2%} there", flush=True)  # fmt: skip
        return worst <= math.log1p(self._margin)

    def _spread(self, bands: Windows) -> Windows:
        return spread(bands, self._layers, self._trained)


def report(reader: Reader, lengths: list[int], winner: Windows, trained: int) -> None:
    """Perplexity of the rows that matter, and the change against full attention in per cent with
    its 95% interval over documents."""
    full = Setting((math.inf,) * len(winner))
    same = (float(trained),) * len(winner)
    rows = {
        "bare": Setting(full.windows, switches=False),
        "+ ntk + logn": full,
        "+ the schedule": Setting(winner),
        "the schedule upside down": Setting(winner[::-1]),
        "S in every layer": Setting(same),
        "S in every layer, bare": Setting(same, switches=False),
    }
    print(f"\n{'':28}" + heads(lengths))
    for name, setting in rows.items():
        readings = [reader.read(setting, length) for length in lengths]
        line = "".join(f"{reading.perplexity:9.2f}" for reading in readings)
        print(f"{name:28}{line}   keys {kept(setting.windows, lengths[-1]):4.0%}, "
              f"{readings[-1].seconds:.1f} s at {lengths[-1]}", flush=True)  # fmt: skip
    print(f"\n{'against + ntk + logn':28}" + heads(lengths, 18))
    for name, setting in rows.items():
        if setting != full:
            changes = [reader.change(setting, length, full) for length in lengths]
            print(f"{name:28}" + "".join(f"{percent(each):>18}" for each in changes))


def heads(lengths: Sequence[int], width: int = 9) -> str:
    """Column heads."""
    return "".join(f"{length:{width}}" for length in lengths)


def percent(changes: list[float]) -> str:
    """A change of perplexity, and half the width of its interval."""
    mean, (low, high) = fmean(changes), mean_interval(changes)
    return f"{math.expm1(mean):+.2%} ± {(high - low) / 2:.2%}"


def works(path: Path, tokenizer: Tokenizer, tokens: int) -> Iterator[list[int]]:
    """The first tokens of every work that is long enough."""
    for row in read_jsonl(path):
        text = row["text"][FRONT_MATTER : FRONT_MATTER + 8 * tokens]
        ids = tokenizer.encode(text)[:tokens]
        if len(ids) == tokens:
            yield ids


def main() -> None:
    """Search, then report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny", help="as qwen-eval run takes it")
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--language", default="en", choices=("en", "zh"))
    parser.add_argument("--lengths", default="1,2,4,8", help="in trained lengths, 1 first")
    parser.add_argument("--documents", type=int, default=4, help="to choose by, and to report on")
    parser.add_argument("--bands", type=int, default=5)
    parser.add_argument("--margin", type=float, default=0.005, help="of perplexity, a share")
    parser.add_argument("--reverse", action="store_true", help="windows do not rise with height")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    options = parser.parse_args()
    options.model = Path(resolve(options.model).target)
    trained = load_config(options.model).trained_length
    lengths = [int(part) * trained for part in options.lengths.split(",")]
    tokenizer = load_tokenizer(options.model)
    start = tokenizer.start_id
    path = options.data / "longdoc" / f"{options.language}.jsonl.gz"
    count = lengths[-1] // trained * (trained - 1)  # whole pieces of S with the start before each
    documents = list(islice(works(path, tokenizer, count), 2 * options.documents))
    tuned, held = (Reader(options.model, documents[i::2], start, options.dtype) for i in range(2))
    winner = Search(tuned, options, lengths).run()
    print(f"\n--window-sizes {named(winner)}")
    report(held, lengths, winner, trained)


if __name__ == "__main__":
    main()
