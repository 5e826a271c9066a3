"""The list of learned words among the others: its name, its weight, its absence; a tiny store stands for the sparse one."""

from dataclasses import replace

import pytest
from catalog_world import SPACE, World, embed_question

from msearchd import errors
from msearchd.domain.query import SearchQuery
from msearchd.search.asker import LEARNED, Asked
from msearchd.search.service import SearchService
from msearchd.settings.model import SearchSettings


class Questions:
    """A dense and a sparse model, each of which may be switched off (None) or fail."""

    def __init__(self, *, dense=embed_question, sparse=embed_question):
        self._models = {"text": dense, "sparse": sparse}
        self.asked = []

    async def modalities(self):
        return ("sparse",) if self._models["sparse"] is not None else ()

    async def loading_s(self, modality):
        return None

    async def ask(self, modality, samples, *, role):
        self.asked.append(modality)
        if (model := self._models[modality]) is None:
            return None
        found = [await model(text) for text in samples]
        space = replace(found[0][0], sparse=modality == "sparse")
        return Asked(space, tuple(vectors for _, vectors in found))


@pytest.fixture
async def world(tmp_path):
    world = await World.open(tmp_path)
    await world.put(b"travel/vessels.txt", "Vessels crossing the ocean carry cars and people every day")
    await world.put(b"pets/kitten.txt", "A kitten plays with a puppy at home")
    yield world
    await world.close()


async def ask(world, questions, text="boat on the water", **changes):
    service = SearchService(world.catalog, world.store, questions, SearchSettings(**changes))
    return await service.search(SearchQuery(text))


async def test_a_hit_says_that_learned_words_found_it(world):
    reply = await ask(world, Questions())
    assert [one.name for one in reply.lists] == ["words", "names", SPACE.name, LEARNED]
    assert {rank.list for rank in reply.hits[0].ranks} == {SPACE.name, LEARNED}
    assert reply.hits[0].path.endswith(b"vessels.txt")


async def test_learned_words_answer_alone_where_meaning_is_off(world):
    for questions, changes in ((Questions(), {"weight_meaning": 0.0}), (Questions(dense=None), {})):
        reply = await ask(world, questions, **changes)
        assert {rank.list for rank in reply.hits[0].ranks} == {LEARNED}
        assert reply.missing == ()


@pytest.mark.parametrize("changes", [{"weight_sparse": 0.0}, {}])
async def test_without_weight_or_model_they_are_not_asked(world, changes):
    questions = Questions() if changes else Questions(sparse=None)
    reply = await ask(world, questions, **changes)
    assert "sparse" not in questions.asked
    assert LEARNED not in {one.name for one in reply.lists}
    assert reply.hits


async def test_a_sparse_model_that_fails_is_left_out_and_named(world):
    async def away(text):
        message = "the model is away"
        raise errors.RetryLater(message)

    reply = await ask(world, Questions(sparse=away))
    assert reply.hits[0].path.endswith(b"vessels.txt")
    assert len(reply.missing) == 1
    assert LEARNED in reply.missing[0]
    assert "the model is away" in reply.missing[0]


async def test_its_weight_decides_between_two_lists(world):
    async def other(text):
        return await embed_question("pet dog")

    heavy = await ask(world, Questions(sparse=other), weight_sparse=5.0)
    light = await ask(world, Questions(sparse=other), weight_sparse=0.1)
    assert heavy.hits[0].path.endswith(b"kitten.txt")
    assert light.hits[0].path.endswith(b"vessels.txt")
