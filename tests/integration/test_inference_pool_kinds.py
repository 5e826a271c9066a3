"""Pictures, sounds, pairs and speech through pool, wire and worker, with the fake engine."""

import asyncio
import math

import pytest
from inference_fake_engine import key_of
from inference_fakes import MODEL, embed, expected, fake_model, fake_pool, rows

from msearchd import errors
from msearchd.domain.sample import Picture, Sound
from msearchd.inference.pool import Lane


def picture(width, height=8, shade=7):
    return Picture(width, height, bytes([shade]) * (width * height * 3))


def sound(seconds=1, rate=16_000):
    return Sound(rate, b"\x01\x02\x03\x04" * (rate * seconds))


def with_file(model, name):
    with open(f"{model.source}/{name}", "w"):
        pass
    return model


@pytest.mark.parametrize("lane", list(Lane))
async def test_pictures_and_sounds_come_back_in_their_order(tmp_path, lane):
    pictures = [picture(20 + number % 5, 8 + number % 3, number) for number in range(70)]
    sounds = [sound(1, 8000 + 8000 * (number % 2)) for number in range(5)][:: 2 if lane is Lane.INTERACTIVE else 1]
    async with fake_pool(tmp_path) as pool:
        assert rows(await embed(pool, pictures, lane=lane)) == expected(key_of(one) for one in pictures)
        for one in sounds:
            assert rows(await embed(pool, [one], lane=lane)) == expected([key_of(one)])


async def test_pictures_larger_than_a_window_together_are_all_embedded(tmp_path):
    pictures = [picture(1500, 1500, number) for number in range(12)]  # 81 MB
    async with fake_pool(tmp_path) as pool:
        assert rows(await embed(pool, pictures)) == expected(key_of(one) for one in pictures)


@pytest.mark.parametrize("lane", list(Lane))
async def test_multi_vectors_say_how_many_rows_each_item_has(tmp_path, lane):
    pictures = [picture(20 + number, 8 + number % 2) for number in range(7)]
    model = with_file(fake_model(tmp_path), "multi")
    async with fake_pool(tmp_path, model) as pool:
        vectors = await embed(pool, pictures, lane=lane)
        assert vectors.rows == tuple(1 + len(key_of(one)) % 3 for one in pictures)
        assert vectors.count == sum(vectors.rows)
        assert rows(vectors) == [
            row for one, count in zip(pictures, vectors.rows, strict=True) for row in expected([key_of(one)]) * count
        ]


async def test_a_poisonous_picture_is_named_and_costs_its_neighbours_nothing(tmp_path):
    good = [picture(20, 8, number) for number in range(9)]
    async with fake_pool(tmp_path) as pool:
        with pytest.raises(errors.BadAsset, match="passage 1 of 2"):
            await embed(pool, [good[0], picture(13)])
        assert rows(await embed(pool, good)) == expected(key_of(one) for one in good)


async def test_a_picture_that_ends_its_worker_is_found_and_its_neighbours_are_embedded(tmp_path):
    good = [picture(20, 8, number) for number in range(9)]
    async with fake_pool(tmp_path) as pool:
        bad, fine = await asyncio.gather(embed(pool, [picture(17)]), embed(pool, good), return_exceptions=True)
    assert isinstance(bad, errors.BadAsset)
    assert rows(fine) == expected(key_of(one) for one in good)


@pytest.mark.parametrize("lane", list(Lane))
async def test_scores_come_in_the_order_of_the_texts_between_0_and_1(tmp_path, lane):
    model = with_file(fake_model(tmp_path, serves="rerank"), "pairs")
    async with fake_pool(tmp_path, model) as pool:
        scores = await pool.rerank("q", ["", "abc", "abcdef", "x" * 2000], model=MODEL, lane=lane, deadline_s=30)
        assert await pool.rerank("q", [], model=MODEL, lane=lane, deadline_s=30) == ()
    assert scores == pytest.approx((1 / (1 + math.exp(3)), 0.5, 1 / (1 + math.exp(-3)), 1.0))


async def test_a_kind_that_the_model_does_not_take_is_told_in_a_sentence(tmp_path):
    model = with_file(fake_model(tmp_path, serves="rerank"), "pairs")
    async with fake_pool(tmp_path, model) as pool:
        for lane in Lane:
            with pytest.raises(errors.Misconfigured, match="takes pair, not image"):
                await embed(pool, [picture(20)], lane=lane)


async def written(pool, one, **more):
    pieces = pool.transcribe(one, model=MODEL, lane=Lane.BULK, deadline_s=30, **more)
    return [(piece.t0_ms, piece.t1_ms, piece.text) async for piece in pieces]


async def test_speech_is_written_down_piece_by_piece(tmp_path):
    async with fake_pool(tmp_path) as pool:
        assert await written(pool, sound(2), language="de") == [(0, 1000, "de0"), (1000, 2000, "de1")]
        assert await written(pool, Sound(16_000, b"")) == []


async def test_a_worker_that_dies_while_it_writes_goes_on_where_it_was(tmp_path):
    async with fake_pool(tmp_path) as pool:
        pieces = await written(pool, sound(4, rate=440))
        assert [(t0, t1) for t0, t1, _ in pieces] == [(0, 1000), (1000, 2000), (2000, 3000), (3000, 4000)]
        assert pool.snapshot().models[0].restarts == 1


async def test_who_stops_listening_leaves_the_model_idle(tmp_path):
    async with fake_pool(tmp_path) as pool:
        pieces = pool.transcribe(sound(20), model=MODEL, lane=Lane.BULK, deadline_s=30)
        assert (await anext(pieces)).text == "0"
        assert pool.snapshot().models[0].state == "busy"
        await pieces.aclose()
        assert pool.snapshot().models[0].state == "ready"
