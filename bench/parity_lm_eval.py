"""Log-probabilities of every option: our engine against lm-evaluation-harness's hf backend, fp32.

    python -m bench.parity_lm_eval --data ../shared/data

Prints the largest difference per set, the letters each chose, and how often they agree. Equal
letters alone would prove little: a small model answers one letter on many subjects. With --bf16,
how far each strays from its own fp32 when it computes in bf16.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from bench.peers import answers, arc_requests, hellaswag_requests, mmlu_requests, native
from qwen_eval.backends.base import Backend
from qwen_eval.model import smollm2
from qwen_eval.types import LoglikelihoodRequest

SETS = {"mmlu": mmlu_requests, "arc-easy": arc_requests, "hellaswag": hellaswag_requests}


def main() -> None:
    """Compare both on the same items."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--model", type=Path, default=smollm2.folder(), help="a model folder")
    parser.add_argument("--count", type=int, default=100, help="items per set")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--bf16", action="store_true", help="compare each with itself in bf16")
    options = parser.parse_args()
    ours, peer = _both(options.model, "float32")
    ours_bf16, peer_bf16 = _both(options.model, "bfloat16") if options.bf16 else (None, None)
    for name in options.sets.split(","):
        requests = SETS[name](options.data, options.count)
        mine, theirs = _logprobs(ours, requests), _peer_logprobs(peer, requests)
        print(f"{name}: {len(requests)} items, {sum(map(len, mine))} options")
        print(f"  largest difference {max(_differences(mine, theirs)):.2e}")
        letters = [
            [max(range(len(row)), key=row.__getitem__) for row in rows] for rows in (mine, theirs)
        ]
        same = sum(a == b for a, b in zip(*letters, strict=True))
        print(f"  same option chosen {same} of {len(requests)}")
        for who, chosen in zip(("ours", "peer"), letters, strict=True):
            counts = Counter("ABCDE"[i] for i in chosen)
            print(f"  {who} chose {dict(sorted(counts.items()))}", flush=True)
        if ours_bf16 is not None:
            _stray("ours", _differences(mine, _logprobs(ours_bf16, requests)))
            _stray("peer", _differences(theirs, _peer_logprobs(peer_bf16, requests)))


def _stray(who: str, differences: list[float]) -> None:
    mean = statistics.fmean(differences)
    print(f"  {who} in bf16: mean {mean:.2e}, largest {max(differences):.2e}", flush=True)


def _both(folder: Path, dtype: str) -> tuple[Backend, Any]:
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(pretrained=str(folder), dtype=dtype, batch_size=8, device="cpu")
    return native(folder, dtype=dtype), peer


def _differences(some: list[list[float]], others: list[list[float]]) -> list[float]:
    return [
        abs(a - b) for pair in zip(some, others, strict=True) for a, b in zip(*pair, strict=True)
    ]


def _logprobs(ours: Backend, requests: list[LoglikelihoodRequest]) -> list[list[float]]:
    return [list(response.logprobs) for response in answers(ours, list(requests))]


def _peer_logprobs(peer, requests: list[LoglikelihoodRequest]) -> list[list[float]]:
    from lm_eval.api.instance import Instance

    instances = [
        Instance("loglikelihood", {}, (request.prompt.full_text, option), i)
        for i, request in enumerate(requests)
        for option in request.continuations
    ]
    flat = iter(peer.loglikelihood(instances, disable_tqdm=True))
    return [[next(flat)[0] for _ in request.continuations] for request in requests]


if __name__ == "__main__":
    main()
