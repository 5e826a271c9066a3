"""Sparse vectors through pool, wire and worker, with the fake engine."""

import asyncio
from pathlib import Path

import pytest
from inference_fake_engine import entries
from inference_fakes import MODEL, embed, fake_model, fake_pool

from msearchd import errors
from msearchd.domain.space import SparseVectors
from msearchd.inference.pool import Lane
from msearchd.search.asker import each

TEXTS = [" ".join(f"word{n % (3 + length)}" for n in range(length)) for length in (5, 0, 60, 1, 0, 17, 300, 2)]


def sparse_model(tmp_path):
    model = fake_model(tmp_path, serves="sparse")
    (Path(model.source) / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    return model


@pytest.mark.parametrize("lane", list(Lane))
async def test_entries_come_back_in_the_order_of_the_texts_also_where_a_text_has_none(tmp_path, lane):
    async with fake_pool(tmp_path, sparse_model(tmp_path)) as pool:
        vectors = await embed(pool, TEXTS, lane=lane)
        assert type(vectors) is SparseVectors
        assert vectors.dim == 1000
        assert [bytes(one.data) for one in each(vectors)] == [entries(text) for text in TEXTS]
        assert len(vectors.costs) == len(TEXTS)
        for texts in ([""], ["", " "]):
            nothing = await embed(pool, texts, lane=lane)
            assert (type(nothing), nothing.count, nothing.rows) == (SparseVectors, 0, (0,) * len(texts))
        none = await embed(pool, [], lane=lane)
        assert (type(none), none.count, none.dim) == (SparseVectors, 0, 1000)


async def test_many_callers_share_batches_and_each_gets_its_own(tmp_path):
    async with fake_pool(tmp_path, sparse_model(tmp_path)) as pool:
        asked = [[f"{word} file{number}" for word in ("one", "two two", "three") * 20] for number in range(8)]
        for texts, vectors in zip(asked, await asyncio.gather(*(embed(pool, texts) for texts in asked)), strict=True):
            assert [bytes(one.data) for one in each(vectors)] == [entries(text) for text in texts]


async def test_a_text_that_cannot_be_read_costs_its_neighbours_nothing(tmp_path):
    async with fake_pool(tmp_path, sparse_model(tmp_path)) as pool:
        good = asyncio.gather(*(embed(pool, [text]) for text in TEXTS))
        with pytest.raises(errors.BadAsset):
            await embed(pool, ["some words", "an @unreadable one", ""])
        assert [bytes(vectors.data) for vectors in await good] == [entries(text) for text in TEXTS]


async def test_its_space_says_what_it_holds(tmp_path):
    async with fake_pool(tmp_path, sparse_model(tmp_path)) as pool:
        space = await pool.space(MODEL)
        assert (space.sparse, space.multi, space.dim, space.distance) == (True, False, 1000, "dot")
