"""What distinguishes one decoder from another, and how the families' config.json say it.

Covers Qwen v1, Qwen1.5/2/2.5, Qwen3 and Llama. Figures and defaults: Qwen Technical Report,
section 2.3 and table 1, and the released configurations. Knows nothing of weights or text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from qwen_eval.errors import UserError

from .windows import SINKS, schedule, windows_of
from .yarn import Yarn, yarn_from_hf, yarn_to_hf

Family = Literal["qwen", "qwen2", "qwen3", "llama"]

ARCHITECTURES: dict[str, Family] = {
    "QWenLMHeadModel": "qwen",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
}


@dataclass(frozen=True)
class ModelConfig:
    """One decoder. Sizes in elements, lengths in tokens.

    `ffn_size` is the true width of each of the two FFN projections (Qwen v1's own config holds
    twice that). `trained_length` is S of the paper's section 2.5: beyond it NTK and LogN act.
    `ntk_chunks`: NTK's alpha follows the text as it grows, where the released rule takes it once
    from the prompt's length. `yarn` stretches RoPE by a fixed factor instead.
    `windows` holds one entry per layer, None meaning full attention; empty means full everywhere.
    `sinks`: tokens at the start of a text that layers with a window see besides.
    A window of w lets a token see itself and the w - 1 tokens before it.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    max_length: int = 2048
    trained_length: int = 2048
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    ntk: bool = False
    ntk_chunks: bool = False
    logn: bool = False
    yarn: Yarn | None = None
    windows: tuple[int | None, ...] = ()
    sinks: int = 0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built. Raises UserError."""
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "sinks" else 1
            if field.type == "int" and (not isinstance(value, int) or value < least):
                raise UserError(f"config: {field.name} must be a positive whole number, is {value}")
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"config: {self.num_heads} heads cannot share {self.num_kv_heads} key-value heads"
            )
        if self.head_dim % 2:
            raise UserError(f"config: head_dim must be even for RoPE, is {self.head_dim}")
        if self.windows and len(self.windows) != self.num_layers:
            raise UserError(
                f"config: {len(self.windows)} windows for {self.num_layers} layers; give one each"
            )
        if self.ntk_chunks and not self.ntk:
            raise UserError("config: ntk_chunks says when NTK acts, and ntk is off")
        if self.ntk and self.yarn:
            raise UserError("config: RoPE is stretched by NTK or by YaRN, not by both")

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (2 * q + 2 * kv)
        attention += (q + 2 * kv) * self.qkv_bias + self.hidden_size * self.out_bias
        attention += 2 * self.head_dim * self.qk_norm
        ffn = 3 * self.hidden_size * self.ffn_size
        ffn += (2 * self.ffn_size + self.hidden_size) * self.mlp_bias
        layer = attention + ffn + 2 * self.hidden_size
        embedding = self.vocab_size * self.hidden_size
        return embedding * (1 if self.tied else 2) + self.num_layers * layer + self.hidden_size

    def window(self, layer: int) -> int | None:
        """The window of a layer, None for full attention."""
        return self.windows[layer] if self.windows else None

    def with_context(
        self,
        *,
        ntk: bool | None = None,
        ntk_chunks: bool | None = None,
        logn: bool | None = None,
        window: bool | None = None,
        window_sizes: str | None = None,
        yarn: float | None = None,
        max_length: int | None = None,
    ) -> ModelConfig:
        """The same model with the inference-time switches of section 2.5 set; None keeps one.

        `window`: what config.json names, else windows.schedule; `window_sizes`: others in its
        place, as `--window-sizes` says them. `yarn`: a factor, by which the context grows, too.
        With ntk, or where ntk is False in so many words and nothing stretches RoPE, `max_length`
        may go beyond the context. Raises UserError for what does not go together, or not with this
        model, naming the flag.
        """
        stretch = self.yarn if yarn is None else self._yarn_by_flag(yarn, ntk)
        if stretch and (ntk or ntk_chunks):
            raise UserError(
                f"{'--ntk' if ntk else '--ntk-chunks'}: {'--yarn' if yarn else 'config.json'} "
                "stretches RoPE by YaRN already; leave it out"
            )
        dynamic = self.ntk if ntk is None else ntk
        if ntk_chunks and not dynamic:
            raise UserError("--ntk-chunks: says when NTK acts, and NTK is off; add --ntk")
        own = max(self.max_length, stretch.length) if stretch else self.max_length
        length = max_length or own
        if length > own and stretch:
            raise UserError(
                f"--max-length {length}: YaRN stretches this model's context to {own} tokens; take "
                "less" + (", or a larger --yarn" if yarn else "")
            )
        if length > own and not dynamic and ntk is None:
            raise UserError(
                f"--max-length {length}: this model's context is {own} tokens; take less, stretch "
                "it with --ntk or --yarn, or run the bare model beyond it with --no-ntk"
            )
        windows = self._windows_by_flag(window, window_sizes, length)
        return replace(
            self,
            ntk=dynamic,
            ntk_chunks=dynamic and self.ntk_chunks if ntk_chunks is None else ntk_chunks,
            logn=self.logn if logn is None else logn,
            yarn=stretch,
            windows=windows,
            sinks=SINKS if windows and not self.windows else self.sinks,
            max_length=length,
        )

    def _yarn_by_flag(self, factor: float, ntk: bool | None) -> Yarn:
        if self.yarn:
            raise UserError(
                f"--yarn {factor:g}: config.json stretches RoPE by YaRN already; leave it out"
            )
        if ntk:
            raise UserError(f"--yarn {factor:g}: --ntk stretches RoPE as well; leave one out")
        if self.ntk and ntk is None:
            raise UserError(
                f"--yarn {factor:g}: config.json stretches RoPE by NTK already; add --no-ntk"
            )
        if not 1 <= factor < math.inf:
            raise UserError(f"--yarn {factor:g}: give a factor from 1 on, such as 4")
        return Yarn(factor, self.trained_length)

    def _windows_by_flag(
        self, window: bool | None, sizes: str | None, length: int
    ) -> tuple[int | None, ...]:
        if sizes is not None and window is False:
            raise UserError(f"--window-sizes {sizes}: --no-window says otherwise; leave one out")
        if sizes is not None and self.windows:
            raise UserError(
                f"--window-sizes {sizes}: config.json names the windows that this model was "
                "trained with; leave it out"
            )
        if window is False:
            return ()
        if self.windows or (window is None and sizes is None):
            return self.windows
        windows: Sequence[int | None] = schedule(self.num_layers, self.trained_length)
        if sizes is not None:
            windows = windows_of(sizes, self.num_layers, length)
        # What reaches over the whole context is full attention.
        shown = tuple(w if w is not None and w < length else None for w in windows)
        return shown if any(shown) else ()


def load_config(folder: Path) -> ModelConfig:
    """Read config.json of a checkpoint folder. Raises UserError naming the file."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: no config.json; is this a model folder?") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a JSON object")
    return config_from_hf(raw, where=str(path))


def family_of(raw: Mapping[str, Any]) -> Family | None:
    """The family a config.json describes, None if it is not one of ours."""
    for name in raw.get("architectures") or []:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    by_type: dict[str, Family] = {f: f for f in ARCHITECTURES.values()}
    return by_type.get(str(raw.get("model_type", "")))


def config_from_hf(raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Translate a config.json of any supported family. Raises UserError for the rest."""
    family = family_of(raw)
    if family is None:
        named = ", ".join(map(str, raw.get("architectures") or [raw.get("model_type")]))
        raise UserError(
            f"{where}: architecture {named} is not one of {', '.join(ARCHITECTURES)}; "
            "use --model hf:PATH"
        )
    try:
        return _from_qwen1(raw) if family == "qwen" else _from_hf(raw, family)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('config: ')}") from error
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]} is missing") from error
    except ZeroDivisionError:
        raise UserError(f"{where}: num_attention_heads must not be zero") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


def _from_qwen1(raw: Mapping[str, Any]) -> ModelConfig:
    # The released configs hold the sum of both FFN widths; the code halves it (modeling_qwen.py).
    heads, length = raw["num_attention_heads"], raw.get("seq_length", 2048)
    return ModelConfig(
        family="qwen",
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=raw.get("kv_channels", raw["hidden_size"] // heads),
        ffn_size=raw["intermediate_size"] // 2,
        rope_base=float(raw.get("rotary_emb_base", 10000.0)),
        norm_eps=float(raw.get("layer_norm_epsilon", 1e-6)),
        max_length=max(raw.get("max_position_embeddings", length), length),
        trained_length=length,
        qkv_bias=True,
        out_bias=not raw.get("no_bias", True),
        mlp_bias=not raw.get("no_bias", True),
        tied=bool(raw.get("tie_word_embeddings", False)),
        ntk=bool(raw.get("use_dynamic_ntk", False)),
        logn=bool(raw.get("use_logn_attn", False)),
        init_std=float(raw.get("initializer_range", 0.02)),
    )


def _from_hf(raw: Mapping[str, Any], family: Family) -> ModelConfig:
    # transformers 5 gathers RoPE's settings under rope_parameters; before, they stood apart. Where
    # somebody adds the old key to a new file, it is the old one that counts, there and here.
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise UserError(f"RoPE scaling {kind!r} is not supported; use --model hf:PATH")
    yarn = yarn_from_hf(rope, raw) if kind == "yarn" else None
    base = {**raw, **(raw.get("rope_parameters") or {}), **rope}.get("rope_theta", 10000.0)
    if raw.get("hidden_act", "silu") != "silu":
        raise UserError(f"activation {raw['hidden_act']!r}; only silu is supported")
    heads, layers = raw["num_attention_heads"], raw["num_hidden_layers"]
    length = raw.get("max_position_embeddings", 2048)
    bias = bool(raw.get("attention_bias", False))
    return ModelConfig(
        family=family,
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or (128 if family == "qwen3" else raw["hidden_size"] // heads),
        ffn_size=raw["intermediate_size"],
        rope_base=float(base),
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        # Qwen3's configs allow for more than the original length, and their YaRN for more yet.
        max_length=max(length, yarn.length) if yarn else length,
        trained_length=yarn.original_length if yarn else length,
        qkv_bias=True if family == "qwen2" else bias,
        out_bias=False if family == "qwen2" else bias,
        mlp_bias=bool(raw.get("mlp_bias", False)) and family == "llama",
        qk_norm=family == "qwen3",
        tied=bool(raw.get("tie_word_embeddings", False)),
        yarn=yarn,
        windows=() if family == "llama" else _windows_from_hf(raw, layers),
        init_std=float(raw.get("initializer_range", 0.02)),
    )


def _windows_from_hf(raw: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    size = raw.get("sliding_window")
    if not (raw.get("use_sliding_window") and size):
        return ()
    # Qwen2 windows its upper layers, the opposite of the paper's section 2.5; transformers 5
    # lists the layers besides. 28 is the default of its configuration class.
    first = raw.get("max_window_layers", 28)
    windowed = [i >= first for i in range(layers)]
    if raw.get("layer_types"):
        windowed = [kind == "sliding_attention" for kind in raw["layer_types"]]
    return tuple(size if w else None for w in windowed) if any(windowed) else ()


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The config.json that the family's own code reads; the inverse of config_from_hf.

    Raises UserError for windows or a YaRN that such a file cannot state.
    """
    architecture = next(name for name, f in ARCHITECTURES.items() if f == config.family)
    windowed = [i for i, w in enumerate(config.windows) if w is not None]
    kinds_of = set(config.windows) - {None}
    if windowed and (config.family in ("qwen", "llama") or len(kinds_of) > 1 or config.sinks):
        raise UserError(
            f"config: a config.json of {config.family} cannot hold the windows {config.windows}"
        )
    if config.yarn and config.family == "qwen":
        raise UserError("config: a config.json of qwen cannot hold YaRN")
    shared = {
        "architectures": [architecture],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.max_length,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
    }
    if config.family == "qwen":
        return shared | {
            "intermediate_size": 2 * config.ffn_size,
            "kv_channels": config.head_dim,
            "rotary_emb_base": config.rope_base,
            "layer_norm_epsilon": config.norm_eps,
            "seq_length": config.trained_length,
            "no_bias": not config.out_bias,
            "use_dynamic_ntk": config.ntk,
            "use_logn_attn": config.logn,
        }
    full = shared | {
        "intermediate_size": config.ffn_size,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rope_theta": config.rope_base,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.qkv_bias,
    }
    if config.family == "llama":
        full["mlp_bias"] = config.mlp_bias
    if config.yarn:
        full["rope_scaling"] = yarn_to_hf(config.yarn)
    if windowed:
        kinds = ["full_attention" if w is None else "sliding_attention" for w in config.windows]
        full |= {
            "use_sliding_window": True,
            "sliding_window": config.windows[windowed[0]],
            "max_window_layers": windowed[0],
            "layer_types": kinds,
        }
    return full
