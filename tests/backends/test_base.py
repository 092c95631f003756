"""What tells two model folders apart, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_eval.backends.base import folder_fingerprint, model_name

PARTS = [
    "model-00001-of-00002.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "qwen.tiktoken",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "chat_template.jinja",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in PARTS:
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", PARTS)
def test_every_part_counts(folder: Path, name: str) -> None:
    before = folder_fingerprint(folder)
    assert len(before) == 16
    (folder / name).write_text("changed")
    assert folder_fingerprint(folder) != before
    (folder / name).write_text(name)
    assert folder_fingerprint(folder) == before
    if not name.endswith(".safetensors"):
        (folder / name).unlink()
        assert folder_fingerprint(folder) not in ("", before)


@pytest.mark.parametrize("name", ["NOTE", "model.safetensors.index.json", "results.json", "a.log"])
def test_what_lies_beside_a_model_does_not_count(folder: Path, name: str) -> None:
    before = folder_fingerprint(folder)
    (folder / name).write_text("something")
    assert folder_fingerprint(folder) == before


def test_a_copy_is_the_same_model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    for name in reversed(PARTS):
        (copy / name).write_bytes((folder / name).read_bytes())
    assert folder_fingerprint(copy) == folder_fingerprint(folder)


def test_a_folder_without_weights_is_no_model(folder: Path) -> None:
    (folder / PARTS[0]).unlink()
    assert folder_fingerprint(folder) == ""
    assert folder_fingerprint(folder / "nowhere") == ""


def test_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder / "inner")
    assert (model_name("."), model_name("..")) == ("inner", folder.name)
    assert model_name(f"{folder}/") == folder.name
    assert model_name("Qwen/Qwen2-0.5B") == "Qwen2-0.5B"
