"""What a pretraining run will take, before it begins: steps, operations, time, memory of a GPU.

Arithmetic only, from a recipe and a number of processes: no weights, no corpus, no GPU. Knows
nothing of how figures are shown. The memory is what tensors take as parallel.py, batch.py and
cross_entropy.py make them, with the lifetimes of torch/distributed/fsdp/_fully_shard; CUDA's own,
NCCL's and what lies idle between tensors come on top.

Symbols: P parameters, of which Pb a block's and Pr the root's (embedding, final norm, head); N
processes; b bytes of an element in the dtype that is computed in; T tokens and B sequences that a
process computes at a time; S length; L layers, E hidden size, H query and K key-value heads of D
elements, Q = H D, F FFN width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig

if TYPE_CHECKING:
    from .pretrain import Pretraining

FP32 = 4
BYTES = {"bfloat16": 2, "float32": 4}
# The share of a GPU's memory that tensors may fill: ours; see the module's docstring for the rest.
USABLE = 0.9

Shapes = Sequence[tuple[int, ...]]


def block_shapes(config: ModelConfig) -> list[tuple[int, ...]]:
    """Of all parameters of one block."""
    E, D, F = config.hidden_size, config.head_dim, config.ffn_size
    q, kv = config.num_heads * D, config.num_kv_heads * D
    shapes: list[tuple[int, ...]] = [(E,), (E,), (q, E), (kv, E), (kv, E), (E, q)]
    shapes += [(q,), (kv,), (kv,)] if config.qkv_bias else []
    shapes += [(E,)] if config.out_bias else []
    shapes += [(D,), (D,)] if config.qk_norm else []
    shapes += [(F, E), (F, E), (E, F)]
    return shapes + ([(F,), (F,), (E,)] if config.mlp_bias else [])


def root_shapes(config: ModelConfig) -> list[tuple[int, ...]]:
    """Of the parameters outside all blocks: embedding, final norm and, unless tied, head."""
    table = (config.vocab_size, config.hidden_size)
    return [table, (config.hidden_size,)] + ([] if config.tied else [table])


def elements(shapes: Shapes, world: int = 1) -> int:
    """The largest share of a process: every parameter is cut along its first dimension.

    sum of ceil(d0 / N) d1.
    """
    return sum(-(-shape[0] // world) * math.prod(shape[1:]) for shape in shapes)


@dataclass(frozen=True)
class Work:
    """How a process computes one stage.

    sequences: B, at a time; parts: how often in a step. width: b. rows: that meet the vocabulary
    together. query_block: of attention on a CPU; None for the fused kernels of a GPU.
    """

    config: ModelConfig
    world: int
    length: int
    sequences: int
    parts: int
    width: int
    rows: int
    query_block: int | None = None
    recompute: bool = False
    separate: bool = False
    compiled: bool = False

    @property
    def tokens(self) -> int:
        """T."""
        return self.sequences * self.length


def norm_activations(work: Work, vectors: int, size: int) -> int:
    """Of an RMSNorm over so many vectors: vectors (4 size + 4 + b size).

    The fp32 copy, the reciprocal root in fp32, and what the weight is multiplied with.
    """
    return vectors * ((FP32 + work.width) * size + FP32)


def attention_activations(work: Work) -> int:
    """What `attend` and the projection behind it keep.

    GPU: queries with keys and values b T (Q + 2 K D), or b T (2 Q + KD + Q) where keys and values
    are repeated for groups; output b T Q; logsumexp 4 T H; the mask of separate documents b T S.

    CPU: scaled queries, keys and values 3 b T Q (before groups are joined again, these are all it
    reads); output b T Q; the softmax of n blocks of up to 128 queries over the keys up to their
    end, b B H sum(queries end), and their masks, sum(queries end) bytes, for each sequence where
    documents are separate.
    """
    config, tokens, b = work.config, work.tokens, work.width
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    if work.query_block is not None:
        met = sum(
            min(work.query_block, work.length - start) * min(start + work.query_block, work.length)
            for start in range(0, work.length, work.query_block)
        )
        masks = met * (work.sequences if work.separate else 1)
        scores = b * work.sequences * config.num_heads * met
        return 4 * b * tokens * q + scores + masks
    grouped = q + kv + (kv if kv == q else 2 * q)
    mask = b * tokens * work.length if work.separate else 0
    return b * tokens * (grouped + q) + FP32 * tokens * config.num_heads + mask


def block_activations(work: Work) -> int:
    """What autograd keeps of one block: what its backward pass reads, weights left out.

    Two norms, 2 T (4 E + 4 + b E), and their outputs, 2 b T E; the norms of queries and keys where
    there are any; attention; gate, its silu, up and their product, 4 b T F. Eager: a compiled block
    keeps less and computes the rest again.
    """
    config, tokens, b = work.config, work.tokens, work.width
    total = 2 * norm_activations(work, tokens, config.hidden_size)
    total += 2 * b * tokens * config.hidden_size
    if config.qk_norm:
        heads = config.num_heads + config.num_kv_heads
        total += norm_activations(work, tokens * heads, config.head_dim)
    return total + attention_activations(work) + 4 * b * tokens * config.ffn_size


def activations(work: Work) -> int:
    """All that is kept at the end of the forward pass, but for the loss's own.

    L blocks, or with `recompute` the input of each, L b T E; the final norm; ids, 8 T; rotations,
    4 T D.
    """
    config, tokens = work.config, work.tokens
    entrance = work.width * tokens * config.hidden_size
    block = entrance if work.recompute else block_activations(work)
    rest = norm_activations(work, tokens, config.hidden_size)
    return config.num_layers * block + rest + tokens * (8 + FP32 * config.head_dim)


def loss_memory(work: Work) -> int:
    """What the cross-entropy takes beside the head's gradient.

    Hidden states and their gradient, 2 b T E, and the larger of two. R rows' logits: eager,
    R V (4 x 4 + 1) for logits, their share, two of its differences and the mark of the gold one;
    compiled, 2 b R V; with either, b R V of the rows before. Or what these add to the head's
    gradient, b V E, beside the b R V that it is made of.
    """
    config, b, rows = work.config, work.width, min(work.rows, work.tokens)
    logit = (2 * b if work.compiled else 4 * FP32 + 1) + (b if work.tokens > rows else 0)
    product = b * config.vocab_size * (config.hidden_size + rows)
    wide = max(rows * config.vocab_size * logit, product)
    return 2 * b * work.tokens * config.hidden_size + wide


def passing(work: Work) -> int:
    """Gradients on their way through a block where they are widest, the FFN: b T (E + 2 F)."""
    config = work.config
    return work.width * work.tokens * (config.hidden_size + 2 * config.ffn_size)


Items = dict[str, int]


def states(work: Work) -> Items:
    """What is held all the time: 4 P / N of fp32 weights and 8 P / N of AdamW's two moments."""
    share = shared_elements(work)
    return {"weights": FP32 * share, "AdamW": 2 * FP32 * share}


def shared_elements(work: Work) -> int:
    """P / N, every parameter's share rounded up."""
    config = work.config
    block, root = block_shapes(config), root_shapes(config)
    return config.num_layers * elements(block, work.world) + elements(root, work.world)


def memory(work: Work) -> dict[str, Items]:
    """Bytes on one GPU, by moment and item; the largest sum is the peak.

    Moments: `loss`, with all activations and the vocabulary; `last block`, where the way back
    begins; `first block`, where it ends; `root`, when the gradients of embedding and head are
    summed over the processes.

    gathered: the root's b Pr, from the first gather to its own backward; with it, during the loss
    the buffer of the last block gathered, b Pb; on the way back a block's weights and the buffer of
    the next, 2 b Pb (for one process there are no buffers). gradients: 4 P / N once a block is
    summed; summed over parts: where a step has several parts, gradients of all parameters are kept
    in fp32, 4 P, and only the last part's are reduced. head gradient: in the loss fp32,
    4 V E, then b V E. block gradients: as computed, and the buffer of
    the block before that is being reduced, (b + 4) Pb. root gradients: b Pr, in fp32 if of several
    parts, and their buffer 4 Pr (twice for one process).
    """
    config, b = work.config, work.width
    block, root = elements(block_shapes(config)), elements(root_shapes(config))
    head = config.vocab_size * config.hidden_size
    alone, several = work.world == 1, work.parts > 1
    held = states(work)
    summed = FP32 * (config.num_layers * block + root) if several else 0
    sharded = FP32 * shared_elements(work)
    kept, one = activations(work), block_activations(work)
    again = one if work.recompute else 0
    inner = kept - config.num_layers * (b * work.tokens * config.hidden_size if again else one)
    during = held | {"gradients of all parts": summed}
    back = {"block gradients": (b if several else b + FP32) * block, "passing": passing(work)}
    return {
        "loss": during
        | {
            "gathered weights": b * (root + (0 if alone else block)),
            "activations": kept,
            "head gradient": FP32 * head,
            "loss": loss_memory(work),
        },
        "last block": during
        | {
            "gathered weights": b * (root + (1 if alone else 2) * block),
            "activations": kept + again,
            "head gradient": b * head,
        }
        | back,
        "first block": during
        | {
            "gathered weights": b * (root + block),
            "activations": inner + one,
            "head gradient": b * head,
            "gradients": 0 if several else sharded,
        }
        | back,
        "root": held
        | {
            "gradients": sharded,
            "root gradients": root * ((FP32 if several else b) + (2 if alone else 1) * FP32),
        },
    }


@dataclass(frozen=True)
class Plan:
    """Of a whole run. flops: 6 per weight and token with attention, over all tokens; recomputed
    ones are not counted. memory: of the stage that takes most. state_bytes, model_bytes: on disk.
    """

    parameters: int
    outside_embeddings: int
    steps: int
    tokens: int
    flops: float
    memory: dict[str, Items]
    state_bytes: int
    states_kept: int
    model_bytes: int

    @property
    def peak(self) -> str:
        """The moment that takes most."""
        return max(self.memory, key=lambda moment: sum(self.memory[moment].values()))

    @property
    def peak_bytes(self) -> int:
        """Of that moment."""
        return sum(self.memory[self.peak].values())

    def seconds(self, world: int, flops_per_second: float) -> float:
        """For so many GPUs that each reach so much."""
        return self.flops / (world * flops_per_second)


def plan(recipe: Pretraining, world: int, rows: int, query_block: int | None = None) -> Plan:
    """What a recipe takes of `world` processes; rows, query_block: see Work.

    Raises UserError where the processes cannot share a batch.
    """
    from .language_model import flops_per_token  # loads torch, which the rest does without

    config = recipe.model.config(recipe.longest)
    width = BYTES[recipe.dtype]
    steps, flops, found = 0, 0.0, []
    for stage in recipe.stages:
        batch = recipe.batch_tokens // stage.length
        if batch % world:
            raise UserError(
                f"--world-size {world}: batch_tokens is {batch} sequences of {stage.length} "
                f"tokens, which {world} processes cannot share; take a divisor of {batch}"
            )
        share, part = batch // world, recipe.part_tokens // stage.length
        work = Work(
            config,
            world,
            stage.length,
            min(share, part),
            -(-share // part),
            width,
            rows,
            query_block,
            recipe.recompute,
            recipe.separate_documents,
            recipe.compile,
        )
        found.append(memory(work))
        done = stage.tokens // recipe.batch_tokens
        steps += done
        flops += done * recipe.batch_tokens * flops_per_token(config, stage.length)
    tables = config.parameters - config.num_layers * elements(block_shapes(config))
    return Plan(
        parameters=config.parameters,
        outside_embeddings=config.parameters - tables + config.hidden_size,
        steps=steps,
        tokens=steps * recipe.batch_tokens,
        flops=flops,
        memory=max(found, key=lambda moments: max(sum(m.values()) for m in moments.values())),
        state_bytes=3 * FP32 * config.parameters,
        states_kept=recipe.keep,
        model_bytes=width * config.parameters,
    )
