"""Greedy answers: our engine, batched, against transformers' generate, one by one, fp32.

    python -m bench.parity_transformers --data ../shared/data

Answers must be equal up to the first token where the peer's two best logits lie within 1e-3 of
each other: there the order of floating-point sums decides. Such places are listed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from bench.peers import answers, native, task_items
from qwen_eval.backends.native import NativeBackend
from qwen_eval.model import smollm2
from qwen_eval.types import GenerateRequest

NEAR_TIE = 1e-3


def main() -> None:
    """Compare both on GSM8K prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a data mirror")
    parser.add_argument("--model", type=Path, default=smollm2.folder(), help="a model folder")
    parser.add_argument("--count", type=int, default=50, help="prompts")
    parser.add_argument("--tokens", type=int, default=160, help="new tokens at most")
    options = parser.parse_args()
    ours = native(options.model, batch=16)
    assert isinstance(ours, NativeBackend)
    items = task_items("gsm8k", options.data, options.count)
    requests = [
        GenerateRequest(i.prompt, replace(i.decoding, max_tokens=options.tokens)) for i in items
    ]
    began = time.perf_counter()
    mine = answers(ours, list(requests))
    print(f"ours: {time.perf_counter() - began:.1f} s, batched", flush=True)
    peer = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    began = time.perf_counter()
    equal, ties, wrong = 0, [], []
    for number, (request, response) in enumerate(zip(requests, mine, strict=True)):
        prompt = torch.tensor([ours.tokenizer.encode(request.prompt.full_text)])
        with torch.no_grad():
            out = peer.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=max(
                    response.output_tokens, 1
                ),  # its end alone, where ours ended at once
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                eos_token_id=sorted(ours.tokenizer.stop_ids),
                pad_token_id=ours.tokenizer.eos_id,
            )
        new = out.sequences[0, prompt.shape[1] :].tolist()
        text = ours.tokenizer.decode(new)
        cuts = [i for stop in request.decoding.stop if (i := text.find(stop)) >= 0]
        if text[: min(cuts, default=None)] == response.text:
            equal += 1
            continue
        tops = [row[0].topk(2).values for row in out.logits]
        margins = [float(best - second) for best, second in tops]
        near = next((i for i, margin in enumerate(margins) if margin < NEAR_TIE), None)
        agreed = near is not None and _same_start(ours, new, near, response.text)
        (ties if agreed else wrong).append((number, near, margins[near] if near else None))
        print(f"  {number}: {text[:60]!r} / {response.text[:60]!r}")
    print(f"peer: {time.perf_counter() - began:.1f} s, one by one")
    print(f"{equal} of {len(requests)} answers equal")
    print(f"{len(ties)} equal up to a near tie of the peer: {ties}")
    print(f"{len(wrong)} differ: {wrong}")


def _same_start(ours: NativeBackend, peers_ids: list[int], upto: int, text: str) -> bool:
    return text.startswith(ours.tokenizer.decode(peers_ids[:upto]))


if __name__ == "__main__":
    main()
