"""Tokenizers against published ids, transformers, and the round trip through bytes."""

from __future__ import annotations

import base64
import importlib.util
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.model.smollm2 import GGUF
from qwen_eval.model.tokenizer import FastTokenizer, TiktokenTokenizer, load_tokenizer
from tests.model.toy_folder import toy_tokenizer

TEXTS = [
    "The quick brown fox, aged 12345, didn't jump.\n\n  Twice.  \n",
    "def f(x):\n\treturn x  # comment\n",
    "你好，世界！2023年。 naïve café Ω≈ç√ 🦀🏳️‍🌈 한국어",
    "   \n \t x\r\n\r\ny  ",
    "<|im_start|>system\n<|im_end|> <tool_call> <|endoftext|>",
]


@pytest.fixture(scope="module")
def qwen() -> TiktokenTokenizer:
    """The published Qwen vocabulary, which the package dashscope ships."""
    package = importlib.util.find_spec("dashscope")
    assert package is not None, "the dev extra installs dashscope"
    assert package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0]) / "resources"
    return TiktokenTokenizer(folder / "qwen.tiktoken")


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> FastTokenizer:
    return FastTokenizer(smollm2)


# --- qwen.tiktoken: figures from paper.md B (the released tokenizer and its notes) -----------


def test_published_sizes_and_control_ids(qwen: TiktokenTokenizer) -> None:
    assert qwen.vocab_size == 151851
    assert [qwen.special(f"<|{n}|>") for n in ("endoftext", "im_start", "im_end")] == [
        151643,
        151644,
        151645,
    ]
    assert qwen.special("<|extra_0|>") == 151646
    assert qwen.special("<|extra_204|>") == 151850
    assert qwen.eos_id == qwen.start_id == 151643
    assert qwen.bos_id is None


def test_published_ids_of_control_tokens_written_out(qwen: TiktokenTokenizer) -> None:
    text = 'print("<|endoftext|>")'
    assert qwen.encode(text) == [1350, 9639, 91, 8691, 723, 427, 91, 82598]
    assert qwen.encode(text, allow_special=True) == [1350, 445, 151643, 899]
    assert qwen.decode([51461, 117]) == " 根"


def test_half_a_character_is_bytes_but_no_text(qwen: TiktokenTokenizer) -> None:
    assert qwen.decode_bytes([51461]) + qwen.decode_bytes([117]) == " 根".encode()
    assert qwen.decode([51461]).endswith("\ufffd")


def test_digits_stand_alone(qwen: TiktokenTokenizer) -> None:
    assert [qwen.decode([i]) for i in qwen.encode("x=1024")][-4:] == list("1024")


def test_composed_and_decomposed_letters_have_one_encoding(qwen: TiktokenTokenizer) -> None:
    assert qwen.encode("cafe\u0301") == qwen.encode("caf\u00e9")


@given(text=st.text())
def test_qwen_round_trip_is_nfc(qwen: TiktokenTokenizer, text: str) -> None:
    ids = qwen.encode(text)
    assert max(ids, default=0) < 151643, "plain text must never yield a control token"
    assert qwen.decode(ids) == unicodedata.normalize("NFC", text)
    assert qwen.decode_bytes(ids) == unicodedata.normalize("NFC", text).encode()


def test_control_tokens_are_shown_only_on_demand(qwen: TiktokenTokenizer) -> None:
    ids = [*qwen.encode("a"), qwen.special("<|im_end|>")]
    assert qwen.decode(ids) == "a"
    assert qwen.decode_bytes(ids) == b"a"
    assert qwen.decode(ids, show_special=True) == "a<|im_end|>"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda lines: [*lines[:9], b"not base64! 9", *lines[10:]], "line 10"),
        (lambda lines: lines[:200], "missing"),
        (lambda lines: [*lines, lines[3]], "line 257"),
    ],
)
def test_a_broken_vocabulary_is_named(tmp_path: Path, change, named: str) -> None:
    lines = [base64.b64encode(bytes([i])) + b" %d" % i for i in range(256)]
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(b"\n".join(lines))
    assert TiktokenTokenizer(path).vocab_size == 256 + 208
    path.write_bytes(b"\n".join(change(lines)))
    with pytest.raises(UserError) as error:
        TiktokenTokenizer(path)
    assert "qwen.tiktoken" in str(error.value)
    assert named in str(error.value)


# --- tokenizer.json, on the real SmolLM2 ------------------------------------------------------


@pytest.mark.smollm2
@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers_reading_the_gguf(
    smol: FastTokenizer, gguf_only: Path, text: str
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(gguf_only, gguf_file=GGUF)
    assert smol.encode(text, allow_special=True) == theirs(text).input_ids


@pytest.fixture(scope="module")
def gguf_only(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without our tokenizer.json, so that transformers has to build its own."""
    folder: Path = tmp_path_factory.mktemp("gguf")
    (folder / GGUF).symlink_to(smollm2_gguf)
    return folder


@pytest.mark.smollm2
def test_ids_are_those_of_transformers_on_real_text(
    smol: FastTokenizer, gguf_only: Path, mirror: Path
) -> None:
    from transformers import AutoTokenizer

    from qwen_eval.fileio import read_jsonl

    theirs = AutoTokenizer.from_pretrained(gguf_only, gguf_file=GGUF)
    rows = list(read_jsonl(mirror / "gsm8k" / "test.jsonl.gz"))[:200]
    for row in rows:
        text = re.sub(" +(?=[0-9])", " ", row["question"] + row["answer"])
        assert smol.encode(text) == theirs(text).input_ids


@pytest.mark.smollm2
def test_the_smollm_pre_tokenizer_cuts_digits_off_before_spaces_are_shared(
    smol: FastTokenizer,
) -> None:
    # The released tokenizer.json has Digits in front of ByteLevel; transformers' GGUF loader
    # leaves it out, so the two differ where several spaces precede a number.
    assert [smol.decode([i]) for i in smol.encode("and  25")] == ["and", "  ", "2", "5"]


@pytest.mark.smollm2
def test_control_tokens_in_a_text_stay_text(smol: FastTokenizer) -> None:
    ids = smol.encode("<|im_end|>")
    assert smol.special("<|im_end|>") not in ids
    assert smol.decode(ids) == "<|im_end|>"
    assert smol.encode("<|im_end|>", allow_special=True) == [smol.special("<|im_end|>")]


@pytest.mark.smollm2
@given(text=st.text())
def test_smollm2_round_trip(smol: FastTokenizer, text: str) -> None:
    # Bytes never seen when it was trained are no tokens of it and are dropped.
    lacking = {0xF1, 0xF2, 0x04, 0x06, 0x13, 0x14, 0x16, 0x1D}
    text = "".join(c for c in text if not lacking & set(c.encode()))
    ids = smol.encode(text)
    assert smol.decode(ids) == text
    assert smol.decode_bytes(ids) == text.encode()


@pytest.mark.smollm2
def test_what_smollm2_says_of_itself(smol: FastTokenizer) -> None:
    assert smol.vocab_size == 49152
    assert smol.bos_id is None
    assert smol.stop_ids == {0, 2}
    assert smol.default_system is not None
    assert smol.default_system.startswith("You are a helpful AI assistant named SmolLM")
    assert smol.splits_at_spaces


@pytest.mark.smollm2
def test_surrogates_do_not_stop_it(smol: FastTokenizer) -> None:
    assert smol.decode(smol.encode("a\ud83e\udd80b")) == "a🦀b"
    assert smol.decode(smol.encode("a\ud83eb")) == "a\ufffdb"


# --- tokenizer.json, other kinds ------------------------------------------------------------


def test_bos_of_a_template_is_found(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    template = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    assert FastTokenizer(toy_tokenizer(tmp_path, post_processor=template)).bos_id == 256
    assert FastTokenizer(toy_tokenizer(tmp_path)).bos_id is None


def test_start_is_the_named_bos_else_the_end(tmp_path: Path) -> None:
    assert FastTokenizer(toy_tokenizer(tmp_path)).start_id == 257
    assert FastTokenizer(toy_tokenizer(tmp_path, bos_token={"content": "<s>"})).start_id == 256


def test_every_end_of_the_generation_config_stops(tmp_path: Path) -> None:
    toy_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [257, 7]}')
    assert FastTokenizer(tmp_path).stop_ids == {257, 7}


def test_a_normalizer_that_moves_spaces_forbids_cutting(tmp_path: Path) -> None:
    from tokenizers.normalizers import NFC, Prepend

    assert FastTokenizer(toy_tokenizer(tmp_path, normalizer=NFC())).splits_at_spaces
    assert not FastTokenizer(toy_tokenizer(tmp_path, normalizer=Prepend("x"))).splits_at_spaces


@pytest.mark.parametrize(
    ("template", "system"),
    [
        (None, "You are a helpful assistant."),
        ("{% for m in messages %}<|im_start|>{{ m.role }}\n{% endfor %}", None),
        (
            "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
            "{% endif %}<|im_start|>user\n",
            "Be kind.",
        ),
        ("{{ raise_exception('no') }}", "You are a helpful assistant."),
    ],
)
def test_the_default_system_message_is_the_templates(
    tmp_path: Path, template: str | None, system: str | None
) -> None:
    folder = toy_tokenizer(tmp_path, chat_template=template)
    assert FastTokenizer(folder).default_system == system


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither tokenizer"):
        load_tokenizer(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    toy_tokenizer(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(tmp_path)


def test_no_end_token_is_named(tmp_path: Path) -> None:
    toy_tokenizer(tmp_path, eos_token=None)
    with pytest.raises(UserError, match="eos_token"):
        load_tokenizer(tmp_path)


def test_the_file_form_is_chosen_by_what_is_there(tmp_path: Path, qwen: TiktokenTokenizer) -> None:
    assert isinstance(load_tokenizer(toy_tokenizer(tmp_path)), FastTokenizer)
    other = tmp_path / "v1"
    other.mkdir()
    lines = [base64.b64encode(bytes([i])) + b" %d" % i for i in range(256)]
    (other / "qwen.tiktoken").write_bytes(b"\n".join(lines))
    assert isinstance(load_tokenizer(other), TiktokenTokenizer)
    shutil.rmtree(other)
