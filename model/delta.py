"""A tuned model as what it adds to its base: a few columns and rows for every matrix.

Each matrix's difference is cut to its strongest components (singular value decomposition); which
ones are kept, over all matrices, is decided by how much of the difference they hold for their
bytes. So a version of a model takes a fraction of the model's size. What is lost is the caller's to
measure: a delta is a model of its own. Knows nothing of how the tuned model was made.

A folder with `delta.safetensors` reads as a checkpoint: its metadata names the base, relative to
the folder, and the hash of the base's weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash

from .transformer import Transformer

DELTA = "delta.safetensors"
WEIGHTS = "model.safetensors"
# How a matrix is stored: W' = W + left @ right.
LEFT, RIGHT = ".left", ".right"
_BYTES = 2  # of a bf16
_ENTRY = 200  # bytes that the file's header takes at most for one tensor


def low_rank(base: Transformer, tuned: Transformer, budget: int) -> dict[str, Tensor]:
    """The tensors of a delta whose file has at most `budget` bytes, in bf16.

    Vectors are kept whole. Raises UserError if they alone are more, or the shapes differ.
    """
    theirs = dict(base.named_parameters())
    kept: dict[str, Tensor] = {}
    parts: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for name, parameter in tuned.named_parameters():
        if name not in theirs or theirs[name].shape != parameter.shape:
            raise UserError(f"{name}: not of the base's shape; a delta needs the same architecture")
        difference = parameter.detach().float() - theirs[name].detach().float()
        if parameter.dim() == 1:
            kept[name] = difference.bfloat16()
        else:
            parts[name] = torch.linalg.svd(difference, full_matrices=False)
    room = budget - sum(tensor.nbytes for tensor in kept.values())
    room -= _ENTRY * (len(kept) + 2 * len(parts) + 1)
    if room < 0:
        raise UserError(f"a delta of {budget} bytes has no room for the norms and biases")
    for name, rank in _ranks(parts, room).items():
        left, values, right = parts[name]
        scale = values[:rank].sqrt()
        kept[name + LEFT] = (left[:, :rank] * scale).bfloat16().contiguous()
        kept[name + RIGHT] = (scale[:, None] * right[:rank]).bfloat16().contiguous()
    return kept


def _ranks(parts: dict[str, tuple[Tensor, Tensor, Tensor]], room: int) -> dict[str, int]:
    """Components of each matrix: the best by energy per byte, over all of them."""
    offers = []
    for name, (left, values, right) in parts.items():
        cost = _BYTES * (left.shape[0] + right.shape[1])
        offers += [(-value * value / cost, name, cost) for value in values.tolist() if value > 0]
    ranks: dict[str, int] = {}
    for _, name, cost in sorted(offers):
        if cost <= room:
            room -= cost
            ranks[name] = ranks.get(name, 0) + 1
    return ranks


def share_held(base: Transformer, tuned: Transformer, made: Transformer) -> float:
    """Of the squared difference between tuned model and base, the share that `made` has as well."""
    whole = lost = 0.0
    triples = zip(base.parameters(), tuned.parameters(), made.parameters(), strict=True)
    for before, wanted, have in ((x.detach().double() for x in triple) for triple in triples):
        whole += float((wanted - before).square().sum())
        lost += float((wanted - have).square().sum())
    return 1 - lost / whole if whole else 1.0


def write_delta(tensors: dict[str, Tensor], folder: Path, base: str) -> None:
    """Write `delta.safetensors`. base: the base's folder, seen from `folder`."""
    weights = folder / base / WEIGHTS
    metadata = {"format": "pt", "base": base, "sha256": file_hash(weights)}
    save_file(tensors, folder / DELTA, metadata=metadata)


def base_of(folder: Path) -> Path | None:
    """The folder of a delta's base, None where `folder` holds no delta.

    Raises UserError for a damaged file, and for a base that is missing or another one.
    """
    path = folder / DELTA
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        base, known = folder / str(metadata["base"]), metadata["sha256"]
    except (SafetensorError, OSError, KeyError) as error:
        raise UserError(f"{path}: not a delta ({error})") from error
    if not (base / WEIGHTS).is_file():
        raise UserError(f"{path}: its base {base} is not there; put the two folders side by side")
    if file_hash(base / WEIGHTS) != known:
        raise UserError(f"{path}: made for other weights than those in {base}")
    return base


def add_delta(model: Transformer, folder: Path) -> None:
    """Add what a folder's delta holds to the weights of its base, in place and in their dtype.

    Raises UserError for a tensor that has no place in the model.
    """
    parameters = dict(model.named_parameters())
    try:
        with safe_open(folder / DELTA, framework="pt") as opened:
            names = sorted(opened.keys())
            found = {name: opened.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / DELTA}: truncated or not safetensors ({error})") from error
    with torch.no_grad():
        for name in names:
            if name.endswith(RIGHT):
                continue
            stem = name.removesuffix(LEFT)
            change = found[name] if stem == name else found[name] @ found[stem + RIGHT]
            if stem not in parameters or parameters[stem].shape != change.shape:
                raise UserError(f"{folder / DELTA}: tensor {name} has no place in the base")
            weight = parameters[stem]
            weight.copy_((weight.float() + change.to(weight.device)).to(weight.dtype))
