"""The gateway's decisions: which model, which lane, what is a picture, how vectors are shortened."""

import base64
import math

import pytest
from gateway_world import DIM, MODELS, WordsPool, unpacked, vector, words_gateway
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from msearchd import errors
from msearchd.control.gateway import EmbeddingsRequest, RerankRequest
from msearchd.domain.sample import Picture, Sound
from msearchd.gateway.inputs import EncodedPicture, is_small, understood
from msearchd.gateway.vectors import packed, shortened
from msearchd.inference.pool import Lane, Role

RED = "data:image/png;base64," + base64.b64encode(b"PIC\xff\x00\x00").decode()


def request(**fields):
    return EmbeddingsRequest.model_validate(fields)


def floats(*numbers):
    from array import array

    return packed(array("f", numbers))


async def test_texts_come_back_in_their_order():
    found = await words_gateway().embed(request(model="words", input=["one", "two", "one"]))
    assert [bytes(row) for row in found.rows] == [vector("one"), vector("two"), vector("one")]
    assert found.dim == DIM
    assert found.model == "words"


async def test_one_text_is_a_list_of_one():
    assert request(input="one").input == ["one"]


async def test_a_model_is_meant_by_name_by_source_or_by_default():
    pool = WordsPool()
    gateway = words_gateway(pool)
    for name in ("words", "acme/words-v1", ""):
        await gateway.embed(request(model=name, input="x"))
    assert [call[0] for call in pool.calls] == ["words"] * 3


async def test_an_unknown_model_is_told_with_the_names_there_are():
    with pytest.raises(
        errors.NotFound, match=r"'ada' does not exist \(there is: words, pictures, sounds, judge, scribe\)"
    ):
        await words_gateway().embed(request(model="ada", input="x"))


async def test_no_name_and_no_default_says_where_to_look():
    gateway = words_gateway(models=tuple(model for model in MODELS if model.name != "judge"))
    gateway._settings = gateway._settings.model_copy(update={"rerank_model": ""})
    with pytest.raises(errors.BadRequest, match="no model is named"):
        await gateway.rerank(RerankRequest(query="x", documents=["y"]))


@pytest.mark.parametrize("name", ["judge", "scribe"])
async def test_a_model_that_does_not_embed_is_refused(name):
    with pytest.raises(errors.BadRequest, match="does not embed"):
        await words_gateway().embed(request(model=name, input="x"))


async def test_a_model_that_does_not_compare_is_refused():
    with pytest.raises(errors.BadRequest, match="does not compare"):
        await words_gateway().rerank(RerankRequest(model="words", query="x", documents=["y"]))


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]], [0.5]])
def test_token_lists_are_refused_in_a_sentence(tokens):
    with pytest.raises(ValidationError, match=r"tokens are not taken.*send text"):
        request(input=tokens)


@pytest.mark.parametrize("wrong", [[], [None], None, 5, {"texts": "x"}, ["x"] * 2049])
def test_what_is_no_text_is_refused(wrong):
    with pytest.raises(ValidationError):
        request(input=wrong)


def test_fields_of_other_servers_are_ignored():
    assert request(input="x", user="me", truncate_prompt_tokens=5, priority=1).input == ["x"]


async def test_a_few_texts_overtake_the_index_and_many_join_it():
    pool = WordsPool()
    gateway = words_gateway(pool)
    await gateway.embed(request(input="a question"))
    await gateway.embed(request(input=["a"] * 100))
    await gateway.embed(request(input="long " * 4000))
    assert [call[2] for call in pool.calls] == [Lane.INTERACTIVE, Lane.BULK, Lane.BULK]


@given(st.lists(st.text(max_size=2000), min_size=1, max_size=40))
def test_a_small_request_never_grows_small_again_by_adding_to_it(texts):
    if not is_small(texts):
        assert not is_small([*texts, "more"])


async def test_questions_are_embedded_as_questions():
    pool = WordsPool()
    gateway = words_gateway(pool)
    for kind in ("query", "search_query", "document", "passage", None):
        await gateway.embed(request(input="x", input_type=kind))
    assert [call[1] for call in pool.calls] == [Role.QUERY, Role.QUERY, Role.DOCUMENT, Role.DOCUMENT, Role.DOCUMENT]


async def test_fewer_dimensions_are_the_head_of_the_vector_at_length_one():
    found = await words_gateway().embed(request(input="x", dimensions=3))
    head = unpacked(vector("x"))[:3]
    norm = math.sqrt(sum(number * number for number in head))
    assert unpacked(found.rows[0]) == pytest.approx([number / norm for number in head], abs=1e-6)
    assert found.dim == 3


async def test_more_dimensions_than_there_are_is_refused():
    with pytest.raises(errors.BadRequest, match="vectors of 8 numbers, not 9"):
        await words_gateway().embed(request(input="x", dimensions=9))


async def test_vectors_of_many_rows_keep_their_rows_and_cannot_be_shortened():
    gateway = words_gateway(WordsPool(rows_each=3))
    found = await gateway.embed(request(input=["x", "y"]))
    assert found.is_multi
    assert [bytes(row) for row in found.rows] == [vector("x") * 3, vector("y") * 3]
    with pytest.raises(errors.BadRequest, match="many vectors"):
        await gateway.embed(request(input="x", dimensions=2))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=64), st.data())
def test_a_shortened_vector_always_has_length_one_or_none(numbers, data):
    dim = data.draw(st.integers(1, len(numbers)))
    cut = unpacked(shortened(floats(*numbers), dim=dim))
    length = math.sqrt(math.fsum(number * number for number in cut))
    assert len(cut) == dim
    assert length == pytest.approx(1.0, abs=1e-4) or not any(number**2 > 0 for number in numbers[:dim])


# -- pictures ----------------------------------------------------------------------------------------------------------


async def test_pictures_and_texts_in_one_request_come_back_in_their_order():
    pool = WordsPool()
    found = await words_gateway(pool).embed(request(model="pictures", input=["red", RED, "blue"]))
    red = Picture(1, 1, b"\xff\x00\x00")
    assert [bytes(row) for row in found.rows] == [vector("red"), vector(red), vector("blue")]
    assert [call[3] for call in pool.calls] == [["red", "blue"], [red]]  # samples of one kind a call


async def test_a_data_uri_is_a_text_for_a_model_that_sees_nothing():
    found = await words_gateway().embed(request(model="words", input=RED))
    assert bytes(found.rows[0]) == vector(RED)
    found = await words_gateway().embed(request(model="pictures", input=RED, modality="text"))
    assert bytes(found.rows[0]) == vector(RED)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("https://example.org/cat.png", "does not begin with data:image/"),
        ("/home/me/cat.png", "does not begin with data:image/"),
        ("data:image/png;base64,@@@@", "base64 is damaged"),
        ("data:image/png;base64,", "empty picture"),
        ("data:image/png,abc", "does not begin with data:image/"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(uri, sentence):
    with pytest.raises(errors.BadRequest, match=f"input 1 .*{sentence}"):
        understood([RED, uri], modality="image", takes={"image"})


async def test_a_picture_that_cannot_be_decoded_is_the_callers_mistake():
    broken = "data:image/png;base64," + base64.b64encode(b"nonsense").decode()
    with pytest.raises(errors.BadRequest, match="input 1 is no picture that can be read"):
        await words_gateway().embed(request(model="pictures", input=["x", broken]))


async def test_a_model_that_sees_nothing_refuses_pictures():
    with pytest.raises(errors.BadRequest, match="does not serve images"):
        await words_gateway().embed(request(model="words", input=RED, modality="image"))


@given(st.text())
def test_a_text_is_never_opened_as_a_path_or_url(text):
    if text[:11].lower() not in {"data:image/", "data:audio/"}:
        assert understood([text], modality=None, takes={"image", "audio"}) == [text]


@given(
    st.text(),
    st.sampled_from(["data:audio/wav;base64,UklGRg==", "data:image/png;base64,AAAA", "data:,x", "/etc/passwd"]),
)
def test_for_a_model_of_text_everything_is_text(text, start):
    assert understood([start + text], modality=None, takes=()) == [start + text]


SOUND = "data:audio/mpeg;base64," + base64.b64encode(b"SND\x00\x00").decode()


async def test_texts_and_sounds_share_a_request_and_keep_their_places():
    pool = WordsPool()
    found = await words_gateway(pool).embed(request(model="sounds", input=["rain", SOUND, {"audio": SOUND}]))
    rain = Sound(48_000, b"audio/mpeg\0\0")
    assert [bytes(row) for row in found.rows] == [vector("rain"), vector(rain), vector(rain)]


async def test_an_object_says_what_an_input_is():
    bare = RED.partition(",")[2]
    inputs = [{"text": RED}, {"image": RED}, {"image": bare}, RED]
    found = await words_gateway().embed(request(model="pictures", input=inputs))
    red = vector(Picture(1, 1, b"\xff\x00\x00"))
    assert [bytes(row) for row in found.rows] == [vector(RED), red, red, red]
    assert request(input={"text": "one"}).input[0].said == ("text", "one")


@pytest.mark.parametrize(
    ("model", "wrong", "sentence"),
    [
        ("words", {"audio": SOUND}, "does not serve audio"),
        ("pictures", {"audio": SOUND}, "does not serve audio"),
        ("sounds", {"image": RED}, "does not serve images"),
        ("sounds", {"audio": "https://example.org/rain.mp3"}, "does not begin with data:audio/"),
        ("sounds", {"audio": RED}, "does not begin with data:audio/"),
        ("sounds", {"audio": base64.b64encode(b"nonsense").decode()}, "is no sound that can be read"),
    ],
)
async def test_an_object_that_the_model_does_not_take_is_refused_in_a_sentence(model, wrong, sentence):
    with pytest.raises(errors.BadRequest, match=sentence):
        await words_gateway().embed(request(model=model, input=["x", wrong]))


@pytest.mark.parametrize("wrong", [{}, {"text": "a", "image": RED}, {"video": "x"}, {"image": 3}])
def test_an_object_of_no_or_two_kinds_is_refused(wrong):
    with pytest.raises(ValidationError):
        request(input=[wrong])


def test_one_picture_is_small_and_two_are_not():
    one = EncodedPicture(b"x")
    assert is_small([one])
    assert not is_small([one, one])


# -- rerank ------------------------------------------------------------------------------------------------------------


async def test_documents_come_back_by_relevance_with_their_index():
    gateway = words_gateway()
    reply = await gateway.rerank(
        RerankRequest(query="north sea ferry", documents=["tea", "ferry north", {"text": "the north sea ferry"}])
    )
    assert [result.index for result in reply.results] == [2, 1, 0]
    assert reply.results[0].relevance_score > reply.results[1].relevance_score > reply.results[2].relevance_score
    assert reply.model == "judge"
    assert reply.results[0].document is None


async def test_top_n_and_documents_are_given_when_asked_for():
    reply = await words_gateway().rerank(
        RerankRequest(query="ferry", documents=["tea", "ferry"], top_n=1, return_documents=True)
    )
    assert [(result.index, result.document.text) for result in reply.results] == [(1, "ferry")]


@given(st.lists(st.sampled_from(["a", "b", "a b", "c"]), min_size=1, max_size=12), st.integers(1, 20))
async def test_a_ranking_never_loses_or_doubles_a_document(documents, top_n):
    reply = await words_gateway().rerank(RerankRequest(query="a b", documents=documents, top_n=top_n))
    scores = [result.relevance_score for result in reply.results]
    assert len({result.index for result in reply.results}) == len(reply.results) == min(top_n, len(documents))
    assert scores == sorted(scores, reverse=True)
