"""Log-probabilities of every option: our engine against lm-evaluation-harness's hf backend, fp32.

    python -m bench.parity_lm_eval --data ../shared/data

Prints the largest difference per set, the letters each chose, and how often they agree. Equal
letters alone would prove little: a small model answers one letter on many subjects.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from bench.peers import answers, arc_requests, hellaswag_requests, mmlu_requests, native
from qwen_eval.model import smollm2
from qwen_eval.types import LoglikelihoodRequest

SETS = {"MMLU 5-shot": mmlu_requests, "ARC-easy": arc_requests, "HellaSwag": hellaswag_requests}


def main() -> None:
    """Compare both on the same items."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--model", type=Path, default=smollm2.folder(), help="a model folder")
    parser.add_argument("--count", type=int, default=100, help="items per set")
    options = parser.parse_args()
    ours = native(options.model)
    peer = _peer(options.model)
    for name, build in SETS.items():
        requests = build(options.data, options.count)
        mine = [response.logprobs for response in answers(ours, list(requests))]
        theirs = _peer_logprobs(peer, requests)
        differences = [
            abs(a - b)
            for pair in zip(mine, theirs, strict=True)
            for a, b in zip(*pair, strict=True)
        ]
        print(f"{name}: {len(requests)} items, {len(differences)} options")
        print(f"  largest difference {max(differences):.2e}")
        letters = [
            [max(range(len(row)), key=row.__getitem__) for row in rows] for rows in (mine, theirs)
        ]
        same = sum(a == b for a, b in zip(*letters, strict=True))
        print(f"  same option chosen {same} of {len(requests)}")
        for who, chosen in zip(("ours", "peer"), letters, strict=True):
            counts = Counter("ABCDE"[i] for i in chosen)
            print(f"  {who} chose {dict(sorted(counts.items()))}")


def _peer(folder: Path):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), dtype="float32", batch_size=8, device="cpu")


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
