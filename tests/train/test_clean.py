"""Bytes become the text that was meant, and text keeps only what can be read."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_eval.train.data.clean import clean, declared_encoding, decode
from qwen_eval.train.data.html import main_text
from qwen_eval.train.data.language import identify

CHINESE = "中华人民共和国是一个国家，人民生活在这片土地上。" * 10
FRENCH = "Être ou ne pas être, voilà la question posée près du café à l'été. " * 5
ARTICLE = "The river rises in the hills north of the town and runs south for ninety miles. "


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030", "big5"])
def test_chinese_is_read_in_any_encoding(encoding: str) -> None:
    text = "中華民國是一個國家" * 30 if encoding == "big5" else CHINESE
    assert decode(text.encode(encoding)) == text


def test_a_declared_encoding_is_believed() -> None:
    page = b"<html><head><meta charset='iso-8859-1'></head>" + FRENCH.encode("latin-1")
    assert declared_encoding(page) == "iso-8859-1"
    assert FRENCH in (decode(page, declared_encoding(page)) or "")
    assert decode(CHINESE.encode("gbk"), "gb2312") == CHINESE


def test_an_encoding_that_does_not_exist_is_passed_over() -> None:
    assert decode(CHINESE.encode("gb18030"), "x-no-such-thing") == CHINESE


@pytest.mark.parametrize(
    "data",
    [bytes(range(256)) * 4, b"\x7fELF\x02\x01\x01" + bytes(500), b"PK\x03\x04" + bytes(200)],
)
def test_binary_files_are_no_text(data: bytes) -> None:
    assert decode(data) is None


@pytest.mark.parametrize("text", ["naïve café – “quoted”", "中文和 English", "Привет, мир"])
def test_utf8_that_was_read_as_windows_1252_is_repaired(text: str) -> None:
    broken = text.encode("utf-8").decode("cp1252", "replace")
    if "\ufffd" in broken:
        broken = text.encode("utf-8").decode("latin-1")
    assert clean(broken) == unicodedata.normalize("NFC", text)


@given(st.text())
@example("e\u0301 \r\n\r\n\r\n\r\n\r\n x \t\n\x00\x1b\ufeff\ud83d\ude00 \ud800")
@example("Ã©Â\x85 Ã\u2028©")
def test_clean_text_is_clean(text: str) -> None:
    done = clean(text)
    assert clean(done) == done
    assert unicodedata.is_normalized("NFC", done)
    assert not {unicodedata.category(c) for c in done.replace("\n", "").replace("\t", "")} & {
        "Cc",
        "Cs",
    }


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1))
def test_plain_words_are_left_alone(text: str) -> None:
    assert clean(text) == text


def test_good_text_with_accents_is_left_alone() -> None:
    for text in (FRENCH.strip(), CHINESE, "Ångström, Øresund, São Paulo", "한국어 문장입니다."):
        assert clean(text) == text


def test_a_page_is_its_article() -> None:
    body = "".join(f"<p>{ARTICLE * 3}{i}</p>" for i in range(5))
    page = (
        "<html><body><nav><a href='/'>Home</a> <a href='/buy'>Add to cart</a></nav>"
        f"<article><h1>The river</h1>{body}</article>"
        "<footer>All rights reserved</footer><script>var x = 1;</script></body></html>"
    )
    text = main_text(page)
    assert text.count(ARTICLE.strip()) == 15
    for frame in ("Add to cart", "All rights reserved", "var x"):
        assert frame not in text


@pytest.mark.parametrize("page", ["", " ", "<html></html>", "<<<>>>", "\x00", "no page at all"])
def test_a_page_without_text_is_no_error(page: str) -> None:
    assert isinstance(main_text(page), str)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ARTICLE, "en"),
        (CHINESE, "zh"),
        ("子曰：「學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？」", "zh"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。", "ja"),
        ("나는 그 사람이 누구인지 모른다. 그러나 그는 좋은 사람이다.", "ko"),
        (FRENCH, "fr"),
        ("Der Fluss entspringt in den Hügeln nördlich der Stadt und fließt nach Süden.", "de"),
        ("用 `pip install numpy` 安装之后，在 Python 里 import numpy 就可以使用了。", "zh"),
    ],
)
def test_languages_are_told_apart(text: str, language: str) -> None:
    found, probability = identify(text)
    assert found == language
    assert 0.5 < probability <= 1


@pytest.mark.parametrize("text", ["", "  ", "123 456 + - = 7", "！？。"])
def test_no_letters_no_language(text: str) -> None:
    assert identify(text) == ("und", 0.0)


@given(st.text(max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    found, probability = identify(text)
    assert found
    assert 0 <= probability <= 1
