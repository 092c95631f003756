"""Ids in, ids and log-probabilities out: KV cache, batching, sampling."""

from .engine import Engine, EngineStats
from .sampling import Sampling
from .sequence import (
    ContinuationScore,
    EngineRequest,
    EngineResult,
    Generate,
    Generated,
    ScoreContinuations,
    ScoreTokens,
)

__all__ = [
    "ContinuationScore",
    "Engine",
    "EngineRequest",
    "EngineResult",
    "EngineStats",
    "Generate",
    "Generated",
    "Sampling",
    "ScoreContinuations",
    "ScoreTokens",
]
