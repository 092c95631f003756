"""Ids in, ids and log-probabilities out.

`submit` queues a request, `step` does one forward pass over a packed batch of whatever is ready
and returns what finished. Sequences join and leave between steps. Knows no text, tasks or files.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from ..attention import Span, pack
from ..rope import ntk_alpha
from ..transformer import Transformer
from .kv_cache import SequenceCache, bytes_per_token, empty_cache
from .scheduler import Job, Piece, Scheduler
from .sequence import (
    AnyTrack,
    EngineRequest,
    EngineResult,
    Generate,
    GeneratingTrack,
    PromptTrack,
    ScoreContinuations,
    ScoreTokens,
    ScoringTrack,
)

LOGIT_ROWS = 256  # rows that meet the vocabulary at a time; 256 x 151,936 fp32 are 156 MB
DEFAULT_CACHE_BYTES = 4 * 2**30


@dataclass
class EngineStats:
    """What the engine has done since it was made; tokens fed, seconds of wall time in step()."""

    steps: int = 0
    prompt_tokens: int = 0
    decoded_tokens: int = 0
    seconds: float = 0.0


class Engine:
    """Continuous batching over one model.

    `max_sequences`: requests computed at a time. `token_budget`: tokens per forward pass; longer
    prompts are fed in chunks. `cache_bytes`: memory for keys and values. Raises ValueError for a
    limit below 1.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        max_sequences: int = 32,
        token_budget: int = 2048,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        for name, limit in (("max_sequences", max_sequences), ("token_budget", token_budget)):
            if limit < 1:
                raise ValueError(f"{name} must be at least 1, is {limit}")
        self.model, self.config = model, model.config
        weight = model.embedding.weight
        self.dtype, self.device = weight.dtype, weight.device
        cache_tokens = cache_bytes // bytes_per_token(self.config, self.dtype)
        self._scheduler = Scheduler(max_sequences, token_budget, cache_tokens)
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
        job = Job(self._next_id, _root_track(request), self._check(request))
        if self.config.ntk:
            # From the whole prompt's length, and kept while decoding (modeling_qwen.py).
            job.root.alpha = ntk_alpha(len(job.root.tokens), self.config.trained_length)
        self._scheduler.add(job)
        self._jobs[job.id] = job
        self._next_id += 1
        return job.id

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

    @torch.inference_mode()
    def step(self) -> list[tuple[int, EngineResult]]:
        """One forward pass; returns the requests it finished, in order of submission."""
        began = time.perf_counter()
        pieces = self._scheduler.plan()
        if pieces:
            self._forward(pieces)
            self._scheduler.store_prompts()
        finished, self._unclaimed = self._unclaimed, []
        for job in list(self._scheduler.running):
            job.branch_out()
            if job.finished:
                self._scheduler.remove(job)
                del self._jobs[job.id]
                finished.append((job.id, _result(job)))
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

    def _check(self, request: EngineRequest) -> int:
        if isinstance(request, ScoreTokens):
            sequences, length = [request.ids], len(request.ids)
            reserved = length
        elif isinstance(request, ScoreContinuations):
            sequences = [request.prompt, *request.continuations]
            longest = max((len(c) for c in request.continuations), default=0)
            length = len(request.prompt) + longest - 1
            reserved = len(request.prompt) + sum(len(c) - 1 for c in request.continuations)
        else:
            sequences = [request.prompt]
            length = reserved = len(request.prompt) + request.sampling.max_tokens
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
        return reserved

    def _forward(self, pieces: list[Piece]) -> None:
        ids: list[int] = []
        spans: list[Span] = []
        rows: list[int] = []  # packed rows that meet the vocabulary
        owners: list[tuple[AnyTrack, int]] = []  # whose they are, and at which position
        for piece in pieces:
            track, end = piece.track, piece.start + piece.length
            for position in track.wanted(piece.start, end):
                rows.append(len(ids) + position - piece.start)
                owners.append((track, position))
            ids += track.tokens[piece.start : end]
            start = track.offset + piece.start
            spans.append(Span(piece.length, start, track.alpha, self._cache_of(track)))
            if isinstance(track, GeneratingTrack) and piece.start >= len(track.prompt):
                self.stats.decoded_tokens += piece.length
            else:
                self.stats.prompt_tokens += piece.length
        batch = pack(self.config, torch.tensor(ids, device=self.device), tuple(spans))
        hidden_TE = self.model.hidden(batch)
        for piece in pieces:
            self._cache_of(piece.track).advance(piece.length)
            piece.track.fed += piece.length
        self._read_logits(hidden_TE[torch.tensor(rows, dtype=torch.long)], owners)

    def _read_logits(self, hidden_RE: Tensor, owners: list[tuple[AnyTrack, int]]) -> None:
        for low in range(0, len(owners), LOGIT_ROWS):
            block = owners[low : low + LOGIT_ROWS]
            logits_RV = self.model.logits(hidden_RE[low : low + LOGIT_ROWS]).float()
            row = 0
            for track, group in groupby(block, key=lambda owner: owner[0]):
                positions = [position for _, position in group]
                track.take(positions[0], logits_RV[row : row + len(positions)])
                row += len(positions)

    def _cache_of(self, track: AnyTrack) -> SequenceCache:
        if track.cache is not None:
            return track.cache
        if isinstance(track, GeneratingTrack):
            capacity = len(track.tokens) + track.request.sampling.max_tokens
            track.cache = empty_cache(self.config, capacity, self.dtype, self.device)
            if track.parent is not None:
                track.cache.adopt(track.parent)
        else:
            # The last token of a scored line is only ever a target.
            capacity = track.waiting() - isinstance(track, ScoringTrack)
            track.cache = empty_cache(self.config, capacity, self.dtype, self.device, track.parent)
        return track.cache


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
