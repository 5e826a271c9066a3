import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.catalog import fold


def test_names_are_compared_without_case_and_accents():
    assert fold.name_key("Ärger.PDF".encode()) == "arger.pdf"
    assert fold.name_key(b"STRASSE") == fold.name_key("Straße".encode())


def test_both_unicode_forms_of_a_name_are_one_key():
    composed, decomposed = (unicodedata.normalize(form, "Café が").encode() for form in ("NFC", "NFD"))
    assert fold.name_key(composed) == fold.name_key(decomposed)
    assert fold.name_key("が".encode()) != fold.name_key("か".encode())


def test_a_name_that_is_not_utf8_has_a_key():
    assert fold.name_key(b"bad\xff\xfename.txt") == "bad\ufffd\ufffdname.txt"


def test_extensions_are_what_people_call_extensions():
    names = {
        "a.pdf": "pdf",
        "a.tar.gz": "gz",
        ".bashrc": "",
        "README": "",
        "a.": "",
        "dr. who": "",
        "x.this-is-too-long-for-one": "",
    }
    assert {name: fold.extension(name) for name in names} == names


def test_identifiers_fall_into_pieces():
    assert fold.camel_parts("getUserName") == ["get", "User", "Name"]
    assert fold.camel_parts("HTTPServer2") == ["HTTP", "Server", "2"]
    assert fold.camel_parts("plain") == []


def test_unspaced_scripts_become_pairs():
    assert fold.pair_unspaced("東京都").split() == ["東京", "京都"]
    assert fold.pair_unspaced("plain text") == "plain text"


@given(st.text(max_size=80))
def test_the_columns_of_a_text_are_always_the_same(text):
    assert fold.index_columns(text) == fold.index_columns(text)


@given(st.text(max_size=40))
def test_folding_a_key_again_changes_nothing_that_matters(text):
    key = fold.fold(text)
    assert fold.fold(fold.fold(key)) == fold.fold(key)


@given(st.text(alphabet="ab1.東京 _-", min_size=1, max_size=12), st.data())
def test_a_name_has_the_grams_of_every_piece_of_itself(name, data):
    """What the trigram table is asked for is in what it holds."""
    key = fold.fold(name)
    start = data.draw(st.integers(0, len(key) - 1))
    piece = key[start : start + data.draw(st.integers(3, 6))]
    if len(piece) >= 3:
        assert all(gram in key for gram in fold.grams_of(piece))


def test_short_words_of_a_name_have_grams_of_their_own():
    assert set(fold.grams_of("a1")) <= set(fold.short_grams("x a1").split()) | {fold.pad("a1")}
    for word in ("東", "東京", "京"):
        assert set(fold.grams_of(word)) <= set(fold.short_grams("東京都").split())


def test_signs_of_a_name_have_grams_of_their_own():
    for sign in ("🎉", "€", "→"):
        assert set(fold.grams_of(sign)) <= set(fold.short_grams(f"a{sign}b.txt").split())
    assert fold.short_grams("bytes \ufffd without name.txt") == ""
    assert fold.apart("x🚀y") == "x 🚀 y"
