import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd import errors
from msearchd.media.text import clean, decode, is_utf8, looks_binary, wide_encoding

GERMAN = "Die Prüfung der Brücke über den Fluß wurde für März verschoben.\n"
RUSSIAN = "Поезд из Мурманска опоздал на три часа, потому что рельсы занесло снегом.\n" * 3
JAPANESE = "京都の古い寺で秋の紅葉を見た。池の水に赤い葉が映っていて、とても静かだった。\n" * 3
POLISH = "Zażółć gęślą jaźń, a potem pójdź na długi spacer wzdłuż Wisły i pomyśl o książkach.\n" * 4


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-8"),
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16"),
        (GERMAN, "utf-16-le"),
        (GERMAN, "utf-16-be"),
        (GERMAN, "utf-32"),
        (GERMAN, "cp1252"),
        (GERMAN, "latin-1"),
        (RUSSIAN, "utf-8"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (POLISH, "cp1250"),
        ("plain", "ascii"),
    ],
)
def test_text_is_read_in_the_encoding_it_was_written_in(text, encoding):
    assert decode(text.encode(encoding)).text == text


@given(st.text())
def test_utf8_always_comes_back_as_it_was_but_for_line_ends_and_controls(text):
    plain = clean(text.encode("utf-8", "replace").decode())
    if looks_binary(plain.encode()) or wide_encoding(plain.encode()):
        return
    assert decode(plain.encode()).text == plain


@given(st.binary(max_size=300))
def test_any_bytes_are_text_without_harm_or_bad(data):
    try:
        text = decode(data).text
    except errors.BadAsset:
        return
    text.encode("utf-8")  # no lone surrogate
    assert "\0" not in text
    assert "\r" not in text


@given(st.text(min_size=1), st.integers(1, 3))
def test_a_character_cut_at_the_end_of_a_sample_is_no_mistake(text, cut):
    data = text.encode("utf-8", "replace")
    assert is_utf8(data + "€".encode()[:cut])


def test_binary_data_is_no_text():
    with pytest.raises(errors.BadAsset, match="no text"):
        decode(bytes(range(256)) * 4)


def test_a_few_damaged_bytes_in_utf8_are_shown_and_told():
    decoded = decode((GERMAN * 5).encode() + b"\xff" + (GERMAN * 5).encode())
    assert decoded.encoding == "utf-8"
    assert decoded.text.count("\ufffd") == 1
    assert "no UTF-8" in decoded.note


def test_raw_samples_with_many_zeros_are_not_taken_for_wide_text():
    assert wide_encoding(b"".join((n % 9).to_bytes(2, "little") for n in range(400))) is None


def test_a_reader_never_shows_the_bytes_of_an_ended_text_differently():
    assert decode(b"ab\r\ncd\re\f").text == "ab\ncd\ne\f"
