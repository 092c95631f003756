"""Ids in, ids and log-probabilities out.

`submit` queues a request, `step` does one forward pass over a packed batch of whatever is ready
and returns what finished. Sequences join and leave between steps. Knows no text, tasks or files.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import ModelConfig
from ..rope import ntk_alpha, ntk_edge
from ..transformer import Transformer
from .kv_cache import BRANCHES, CacheShape
from .pages import PAGE
from .passes import Passes, is_out_of_memory, prompt_rows
from .scheduler import PREFIX_SHARE, Job, Scheduler
from .sequence import (
    AnyTrack,
    EngineRequest,
    EngineResult,
    Generate,
    GeneratingTrack,
    Piece,
    PromptTrack,
    ScoreContinuations,
    ScoreTokens,
    ScoringTrack,
)

# Rows that a decoding pass takes at little more than the cost of one: where products are as slow
# as fp32's on a CPU, few.
DRAFT_ROWS = {torch.float32: 4}
MANY_DRAFT_ROWS = 16
LEAST_ROWS = 16  # prompt tokens that memory must suffice for
USUAL_LENGTH = 2048  # tokens of a sequence that the default cache has room for


@dataclass
class EngineStats:
    """What the engine has done since it was made; tokens fed, seconds of wall time in step()."""

    steps: int = 0
    prompt_tokens: int = 0
    decoded_tokens: int = 0
    drafted_tokens: int = 0
    seconds: float = 0.0


class Engine:
    """Continuous batching over one model.

    `max_sequences`: requests computed at a time. `token_budget`: prompt tokens per forward pass,
    None for as many as the device takes at a time; longer prompts are fed in chunks.
    `cache_bytes`: memory for keys and values, None for as much as the sequences will likely need.
    `batch_invariant`: a request's figures then are the same bits whatever runs beside it; `exact`
    says whether this machine could be brought to it. `prefixes`, `drafts`: share prompts'
    beginnings; try repeated text when decoding greedily. Raises ValueError for a limit below 1 or
    a budget that holds no page.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        max_sequences: int = 32,
        token_budget: int | None = None,
        cache_bytes: int | None = None,
        page_size: int = PAGE,
        batch_invariant: bool = True,
        prefixes: bool = True,
        drafts: bool = True,
    ) -> None:
        for name, limit in (("max_sequences", max_sequences), ("token_budget", token_budget)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1, is {limit}")
        self.model, self.config = model, model.config
        weight = model.embedding.weight
        self.dtype, self.device = weight.dtype, weight.device
        most = prompt_rows(self.device)
        chunk = min(token_budget or most, most)
        shape = CacheShape(self.config, page_size, max_sequences, chunk, PREFIX_SHARE, self.dtype)
        budget = _free_memory(self.device) // 2 if cache_bytes is None else cache_bytes
        pages = shape.pages(budget)
        if cache_bytes is None:
            pages = max(2, min(_usual_pages(self.config, max_sequences, page_size), pages))
        # The newest page of every decoding sequence is a slot; the rest is for all.
        slots = min(max_sequences, pages // 2)
        if not slots:
            raise ValueError(
                f"the budget of {budget:,} bytes for keys and values holds less than two "
                f"pages of {shape.bytes(1):,} bytes; give it more (--kv-memory)"
            )
        self.pools = shape.pools(pages, slots, self.device)
        self._passes = Passes(model, self.pools, batch_invariant=batch_invariant)
        self._scheduler = Scheduler(
            slots,
            chunk,
            self.pools,
            prefixes=prefixes,
            draft_rows=DRAFT_ROWS.get(self.dtype, MANY_DRAFT_ROWS) if drafts else 0,
            trained_length=self.config.trained_length,
        )
        self._jobs: dict[int, Job] = {}
        self._next_id = 0
        self._unclaimed: list[tuple[int, EngineResult]] = []
        self.stats = EngineStats()

    def submit(self, request: EngineRequest) -> int:
        """Queue a request; returns its id.

        Raises ValueError for ids outside the vocabulary, an empty prompt or continuation or
        none at all, a request longer than the model's context, or one that the cache budget
        can never hold.
        """
        self._check(request)
        job = Job(self._next_id, _root_track(request))
        if self.config.ntk:
            # From the whole prompt's length, and kept while decoding (modeling_qwen.py).
            length, trained = len(job.root.tokens), self.config.trained_length
            if self.config.ntk_chunks and not isinstance(job.root, PromptTrack):
                # A scored token sees those before it, whatever comes behind.
                length = 1 if isinstance(job.root, ScoringTrack) else length
                job.root.edge = ntk_edge(length, trained)
            job.root.alpha = ntk_alpha(length, trained)
        self._scheduler.add(job)
        self._jobs[job.id] = job
        self._next_id += 1
        return job.id

    @property
    def attention(self) -> str:
        """The way attention is computed here."""
        return self._passes.attention

    @property
    def exact(self) -> bool:
        """Whether a request's figures are the same bits whatever runs beside it."""
        return self._passes.exact

    @property
    def pending(self) -> int:
        """Requests submitted and not yet returned."""
        return len(self._jobs) + len(self._unclaimed)

    def written(self, job_id: int) -> tuple[int, ...]:
        """The new ids of a generating request so far; empty once it has been returned."""
        job = self._jobs.get(job_id)
        return tuple(job.root.new_ids) if job and isinstance(job.root, GeneratingTrack) else ()

    def cancel(self, job_id: int) -> None:
        """Drop a request and everything computed for it."""
        job = self._jobs.pop(job_id)
        if job in self._scheduler.waiting:
            self._scheduler.waiting.remove(job)
        else:
            self._scheduler.remove(job)

    def weights_changed(self) -> None:
        """Keep nothing that the model's weights computed before they were changed in place.

        Raises ValueError while requests are running that began with the old ones.
        """
        if self._jobs:
            raise ValueError("the weights changed under requests that are not done")
        self._scheduler.prefixes.clear()

    @torch.inference_mode()
    def step(self) -> list[tuple[int, EngineResult]]:
        """One forward pass; returns the requests it finished, in order of submission."""
        began = time.perf_counter()
        decoding, prompts = self._scheduler.plan()
        self._feed(decoding, decoding=True)
        self._feed(prompts, decoding=False)
        self._scheduler.store_prompts()
        finished, self._unclaimed = self._unclaimed, []
        for job in list(self._scheduler.running):
            job.branch_out(self.pools)
            if job.finished:
                self._scheduler.remove(job)
                del self._jobs[job.id]
                finished.append((job.id, _result(job)))
            elif job.root.at_edge:
                self._scheduler.begin_anew(job)
        self.stats.steps += 1
        self.stats.seconds += time.perf_counter() - began
        return sorted(finished, key=lambda item: item[0])

    def run(self, requests: Iterable[EngineRequest]) -> list[EngineResult]:
        """Submit everything and step until all is done; results in the order given.

        Requests submitted apart go on meanwhile; the next step() returns what finished of them.
        Raises ValueError as submit does, and then keeps none of the requests.
        """
        ids: list[int] = []
        try:
            for request in requests:
                ids.append(self.submit(request))
        except ValueError:
            for job_id in ids:
                self.cancel(job_id)
            raise
        done: dict[int, EngineResult] = {}
        left = set(ids)
        while left:
            finished = self.step()
            done.update(finished)
            left.difference_update(job_id for job_id, _ in finished)
        results = [done.pop(job_id) for job_id in ids]
        self._unclaimed += done.items()
        return results

    def _check(self, request: EngineRequest) -> None:
        if isinstance(request, ScoreTokens):
            sequences, length = [request.ids], len(request.ids)
        elif isinstance(request, ScoreContinuations):
            sequences = [request.prompt, *request.continuations]
            longest = max((len(c) for c in request.continuations), default=0)
            length = len(request.prompt) + longest - 1
        else:
            sequences = [request.prompt]
            length = len(request.prompt) + request.sampling.max_tokens
        if isinstance(request, ScoreContinuations) and not request.continuations:
            raise ValueError("no continuation to score")
        if any(not ids for ids in sequences):
            raise ValueError("an empty prompt or continuation")
        if length > self.config.max_length:
            raise ValueError(
                f"{length} tokens do not fit the model's context of {self.config.max_length}"
            )
        low, high = min(map(min, sequences)), max(map(max, sequences))
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(f"token id {low if low < 0 else high} is outside the vocabulary")

    def _feed(self, pieces: Sequence[Piece], *, decoding: bool) -> None:
        """Feed all pieces; where memory does not suffice, fewer at a time from now on."""
        if not pieces:
            return
        before = [piece.track.fed for piece in pieces]
        try:
            self._passes.run(pieces, decoding=decoding)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            left = [p for p, fed in zip(pieces, before, strict=True) if p.track.fed == fed]
            if len(left) == 1 and left[0].rows <= LEAST_ROWS:
                raise
            scheduler = self._scheduler
            # No more than before: rings are as long as the first budget asks for.
            less = max(scheduler.token_budget // 2, LEAST_ROWS)
            scheduler.token_budget = min(scheduler.token_budget, less)
            if len(left) > 1:
                self._feed(left[: len(left) // 2], decoding=decoding)
                self._feed(left[len(left) // 2 :], decoding=decoding)
            # One piece too long alone is cut shorter in the next step.
        else:
            fed = sum(piece.rows for piece in pieces)
            if decoding:
                self.stats.decoded_tokens += len(pieces)
                self.stats.drafted_tokens += fed - len(pieces)
            else:
                self.stats.prompt_tokens += fed


def _root_track(request: EngineRequest) -> AnyTrack:
    if isinstance(request, Generate):
        return GeneratingTrack(request)
    if isinstance(request, ScoreContinuations):
        return PromptTrack(request)
    return ScoringTrack(request.ids)


def _result(job: Job) -> EngineResult:
    if isinstance(job.root, ScoringTrack):
        return tuple(job.root.logprobs)
    return job.root.result()


def _usual_pages(config: ModelConfig, sequences: int, size: int) -> int:
    """Room for every sequence at a usual length with a few branches, and for one at full length.
    It is taken only as it is used."""
    usual = sequences * (-(-min(config.max_length, USUAL_LENGTH) // size) + BRANCHES)
    return usual + -(-config.max_length // size) + 1


def _free_memory(device: torch.device) -> int:
    """Bytes that can still be had, on a CPU by /proc/meminfo; plenty where there is none."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 2**40
    free = next((line for line in lines if line.startswith("MemAvailable:")), "")
    return int(free.split()[1]) * 1024 if free else 2**40
