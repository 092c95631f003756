"""The models that come with the project: as large as promised, and able to do what they are for."""

from __future__ import annotations

import json
import lzma
import math
import re
import subprocess
from pathlib import Path

import pytest
import torch

from qwen_eval.backends.base import Backend, BackendOptions, open_backend
from qwen_eval.model import bundled
from qwen_eval.model.config import load_config
from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.types import Decoding, GenerateRequest, Message, PerplexityRequest, Prompt, Response

ROOT = Path(__file__).parents[2]
# Written for this test: what the corpus is like, but not of it.
ENGLISH = (
    "The rain had not ceased since morning, and when the carriage came at last to the gate of the "
    "old house, the driver got down with a lantern in his hand and said that he could go no "
    "farther that night. My aunt, who had been silent for an hour, looked at him as though he had "
    "proposed to leave us in the river. “You will take us to the door,” she said, “and then you "
    "may do what you please.”\n\nThere was a light in one of the upper windows. I remember that I "
    "thought it strange, for we had been told that nobody had lived there since the death of the "
    "old man; but I was very young, and very tired, and I said nothing about it."
)
CHINESE = (
    "在安装新版本之前，请先备份数据目录。如果升级过程中出现错误，可以使用备份文件恢复到原来的状态。"
    "默认情况下，服务会在启动时检查配置文件，并将结果写入日志。你可以通过修改参数来调整日志的级别，"
    "例如只输出警告和错误信息。需要注意的是，修改配置后必须重新启动服务，新的设置才会生效。"
    "如果集群中有多个节点，建议逐个升级，以免影响正在运行的任务。"
)
CODE = '''\
def merge_sorted(left, right):
    """Return a new list with the items of two sorted lists in order."""
    result = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            result.append(left[i])
            i += 1
        else:
            result.append(right[j])
            j += 1
    result.extend(left[i:])
    result.extend(right[j:])
    return result


class Counter:
    def __init__(self, start=0):
        self.value = start

    def increment(self, by=1):
        if by < 0:
            raise ValueError("by must not be negative")
        self.value += by
        return self.value
'''


def answers(backend: Backend, *requests: GenerateRequest | PerplexityRequest) -> list[Response]:
    ids = [backend.submit(request) for request in requests]
    found: dict[int, Response] = {}
    while len(found) < len(ids):
        found.update(backend.step())
    return [found[i] for i in ids]


@pytest.fixture(scope="module")
def tiny() -> Backend:
    return open_backend("native", str(bundled.folder("tiny")), BackendOptions(dtype="float32"))


def test_sizes_are_those_of_the_card() -> None:
    folder = bundled.folder("tiny")
    config = load_config(folder)
    assert config.family == "qwen"
    assert config.parameters <= 8_000_000
    assert config.vocab_size <= 8192
    assert (config.trained_length, config.max_length) == (1024, 4096)
    assert config.ntk
    assert config.logn
    assert load_tokenizer(folder).vocab_size <= config.vocab_size
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 16 << 20
    for name in set(bundled.NOTES) - {"tiny"}:
        files = list(bundled.folder(name).iterdir())
        assert sum(path.stat().st_size for path in files) <= 3 << 20
        assert load_config(bundled.folder(name)) == config


def test_all_weights_in_the_repository_are_under_24_mib() -> None:
    checkpoints = ROOT / "model" / "checkpoints"
    assert sum(path.stat().st_size for path in checkpoints.rglob("*") if path.is_file()) < 24 << 20


@pytest.mark.parametrize(("text", "share"), [(ENGLISH, 0.6), (CHINESE, 0.6), (CODE, 0.6)])
def test_it_compresses_far_better_than_xz(tiny: Backend, text: str, share: float) -> None:
    (told,) = answers(tiny, PerplexityRequest(text))
    size = len(text.encode())
    bits = -math.fsum(told.logprobs) / math.log(2) / size
    # A raw stream: on so short a text the container's header would decide.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    packed = lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=filters)
    assert bits < share * 8 * len(packed) / size


def test_it_writes_whole_words_and_closes_what_it_opens(tiny: Backend) -> None:
    story = GenerateRequest(Prompt("“I do not know,” said the old"), Decoding(max_tokens=40))
    code = GenerateRequest(
        Prompt("class Point:\n    def __init__(self, name):\n        self."), Decoding(max_tokens=4)
    )
    told, written = answers(tiny, story, code)
    # A line of a constructor: some attribute is given some value, and the line ends.
    assert len(told.text.split()) > 15
    assert told.text.isprintable() or "\n" in told.text
    assert re.fullmatch(r"\w+ = \w+\n.*", written.text, re.DOTALL)


def test_a_chat_ends_its_reply() -> None:
    chat = open_backend("native", str(bundled.folder("tiny-chat")), BackendOptions(dtype="float32"))
    asked = [
        GenerateRequest(Prompt(messages=(Message("user", text),)), Decoding(max_tokens=200))
        for text in ("你喜欢看电影吗？", "你知道北京吗？", "你好，你听过这首歌吗？", "谁演的？")
    ]
    replies = answers(chat, *asked)
    # Greedily so small a model may run in circles once in a while.
    assert sum(reply.finish_reason == "stop" for reply in replies) >= 3
    assert all(reply.text.strip() for reply in replies)


def test_card_and_weights_belong_together() -> None:
    """The card's figures were measured with these weights."""
    from qwen_eval.fileio import file_hash

    card = (ROOT / "model" / "checkpoints" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert file_hash(bundled.folder("tiny") / "model.safetensors") in card


def test_qwens_own_code_would_read_it() -> None:
    """The names and shapes of the released modeling_qwen.py (paper.md, A)."""
    from safetensors import safe_open

    raw = json.loads((bundled.folder("tiny") / "config.json").read_text(encoding="utf-8"))
    width, layers = raw["hidden_size"], raw["num_hidden_layers"]
    half = raw["intermediate_size"] // 2
    wanted = {"transformer.wte.weight": [raw["vocab_size"], width]}
    wanted |= {"transformer.ln_f.weight": [width], "lm_head.weight": [raw["vocab_size"], width]}
    for layer in range(layers):
        stem = f"transformer.h.{layer}"
        wanted |= {f"{stem}.ln_{n}.weight": [width] for n in (1, 2)}
        wanted |= {f"{stem}.attn.c_attn.weight": [3 * width, width]}
        wanted |= {f"{stem}.attn.c_attn.bias": [3 * width]}
        wanted |= {f"{stem}.attn.c_proj.weight": [width, width]}
        wanted |= {f"{stem}.mlp.w{n}.weight": [half, width] for n in (1, 2)}
        wanted |= {f"{stem}.mlp.c_proj.weight": [width, half]}
    path = bundled.folder("tiny") / "model.safetensors"
    with safe_open(path, framework="pt") as opened:
        names = list(opened.keys())
        found = {name: list(opened.get_slice(name).get_shape()) for name in names}
        assert {opened.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert found == wanted


def test_weights_are_committed_as_they_are() -> None:
    """Nothing rewrites line ends or bytes of weights on a checkout."""
    done = subprocess.run(
        ["git", "check-attr", "text", "--", "model/checkpoints/tiny/model.safetensors"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("not a checkout")
    assert "text: unset" in done.stdout
