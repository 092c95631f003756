"""YaRN: RoPE stretched by a fixed factor, as Qwen2.5's and Qwen3's config.json ask for it.

Source: Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", section 3.
Fast pairs of dimensions keep their speed, slow ones turn `factor` times slower, and those between
are blended. Holds the settings and how a config.json says them; the speeds are rope.py's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen_eval.errors import UserError

_OPTIONAL = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate")


@dataclass(frozen=True)
class Yarn:
    """A stretch of `original_length` tokens by `factor`.

    A pair that turns more than `beta_fast` times within the original length keeps its speed; one
    that turns less than `beta_slow` times is slowed by the factor. `truncate`: these edges lie on
    whole pairs. `attention_factor` scales queries and keys; None lets `mscale` and `mscale_all_dim`
    decide, or where they are not both given, 0.1 ln(factor) + 1.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        """Refuse what stretches nothing. Raises UserError."""
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise UserError(f"config: YaRN's factor must be a number from 1 on, is {self.factor}")
        if not isinstance(self.original_length, int) or self.original_length < 1:
            raise UserError(
                "config: YaRN's original_max_position_embeddings must be a positive whole number, "
                f"is {self.original_length}"
            )
        if not self.beta_fast >= self.beta_slow > 0:
            raise UserError(
                f"config: YaRN's beta_fast, {self.beta_fast}, must be no less than its beta_slow, "
                f"{self.beta_slow}, and both above 0"
            )

    @property
    def length(self) -> int:
        """Tokens of the stretched context."""
        return round(self.factor * self.original_length)

    @property
    def scale(self) -> float:
        """What rotated queries and keys are multiplied by (section 3.4; there sqrt(1/t))."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._scale(self.mscale) / self._scale(self.mscale_all_dim)
        return self._scale(1.0)

    def _scale(self, weight: float) -> float:
        return 0.1 * weight * math.log(self.factor) + 1.0

    def blend(self, head_dim: int, base: float) -> tuple[float, float]:
        """The pairs of dimensions, as numbers, between which kept speeds turn into slowed ones."""

        def pair(turns: float) -> float:
            share = math.log(self.original_length / (turns * 2 * math.pi)) / math.log(base)
            return head_dim * share / 2

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        return low, high if high != low else high + 0.001


def yarn_from_hf(rope: Mapping[str, Any], raw: Mapping[str, Any]) -> Yarn:
    """`rope`: rope_scaling or rope_parameters of the config.json `raw`.

    Without a length of its own the stretch is of max_position_embeddings, and without a factor it
    reaches to them, as in transformers. Raises UserError, TypeError, ValueError or KeyError for
    settings that are none.
    """
    limit = raw.get("max_position_embeddings", 2048)
    length = raw.get("original_max_position_embeddings")
    length = length or rope.get("original_max_position_embeddings") or limit
    if rope.get("factor") is None and length == limit:
        raise UserError("rope_scaling: YaRN's factor is missing")
    factor = limit / length if rope.get("factor") is None else rope["factor"]
    given = {name: rope[name] for name in _OPTIONAL if rope.get(name) is not None}
    numbers = {name: float(value) for name, value in given.items() if name != "truncate"}
    return Yarn(float(factor), length, **numbers, truncate=bool(given.get("truncate", True)))


def yarn_to_hf(yarn: Yarn) -> dict[str, Any]:
    """rope_scaling of a config.json; what has its default is left out."""
    default = Yarn(yarn.factor, yarn.original_length)
    return {
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_length,
    } | {
        name: value
        for name in _OPTIONAL
        if (value := getattr(yarn, name)) != getattr(default, name)
    }
