"""Learning a vocabulary: ours and the tokenizers library's, in time, memory and result.

    python -m bench.vocabulary --text ../shared/data/pretrain --size 8192

Each learns in a process of its own, on one thread, from the same documents, pieces and bytes; the
tokens must be the same ones in the same order.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from qwen_eval.train.documents import documents, text_files
from qwen_eval.train.tokenizer.layout import lay_out
from qwen_eval.train.tokenizer.merges import learn
from qwen_eval.train.tokenizer.pieces import count_pieces
from qwen_eval.train.tokenizer.vocabulary import extended

MEASURED = (
    "import resource, subprocess, sys, time; began = time.monotonic(); "
    "done = subprocess.run(sys.argv[1:]); u = resource.getrusage(resource.RUSAGE_CHILDREN); "
    "print(f'wall {time.monotonic() - began:.1f} s, processor {u.ru_utime + u.ru_stime:.1f} s, '"
    "f'peak {u.ru_maxrss / 1024:.0f} MiB'); sys.exit(done.returncode)"
)


def main() -> None:
    """One line each, and whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--alone", choices=("ours", "tokenizers"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        work = ours if options.alone == "ours" else theirs
        tokens = work(text_files(options.text), options.size)
        options.out.write_text("\n".join(token.hex() for token in tokens))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / name for name in ("ours", "tokenizers")]
        for out in results:
            command = [sys.executable, "-m", "bench.vocabulary", *sys.argv[1:]]
            command += ["--alone", out.name, "--out", str(out)]
            print(f"{out.name:12}", end="", flush=True)
            environment = os.environ | {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            measured = [sys.executable, "-c", MEASURED, *command]
            subprocess.run(measured, check=True, env=environment)
        same = results[0].read_text() == results[1].read_text()
    print("the same tokens" if same else "OTHER TOKENS")


def letters() -> dict[str, bytes]:
    """GPT-2's letters for bytes, in the order in which the library numbers them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    plain = {chr(byte): bytes([byte]) for byte in printable}
    return plain | {chr(256 + i): bytes([byte]) for i, byte in enumerate(others)}


def ours(files: list[Path], size: int) -> list[bytes]:
    """Tokens by rank."""
    base = list(letters().values())
    counted = count_pieces(documents(files))
    pieces = lay_out(counted.counts, base)
    counted.counts.clear()
    return extended(base, learn(pieces, size))


def theirs(files: list[Path], size: int) -> list[bytes]:
    """Tokens by rank."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    from qwen_eval.model.tokenizer import QWEN_PATTERN

    split = pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated")
    to_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust = Tokenizer(models.BPE())
    rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = pre_tokenizers.Sequence([split, to_letters])
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, initial_alphabet=list(letters()), show_progress=False
    )
    rust.train_from_iterator((document.text for document in documents(files)), trainer)
    vocabulary, bytes_of = rust.get_vocab(), letters()
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return [b"".join(bytes_of[char] for char in token) for token in ordered]


if __name__ == "__main__":
    main()
