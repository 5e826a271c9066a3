"""What is known of the models, in a real database file: figures, learned sizes, pins made by hand."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_fakes import MODEL, embed, expected, fake_model, fake_pool, rows
from orchestrator_world import OrchestratorWorld
from test_inference_pool import until

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.inference import model_book
from msearchd.inference.learned import MOST_MODELS, Figures
from msearchd.inference.model_book import ModelBook

TEXT = {"cost": 4096.0, "size": 2048.0, "cost_per_s": 10240.5, "settled": 1.0}


@contextlib.asynccontextmanager
async def book_of(tmp_path, **more):
    database = await Database.open(tmp_path / "msearchd.db")
    try:
        yield await ModelBook.open(database, former=tmp_path / "models.json", **more)
    finally:
        await database.close()


async def test_figures_and_learned_sizes_survive_a_restart(tmp_path):
    figures = Figures(
        host_bytes=500, device_bytes=7, load_s=1.5, batches={"text": TEXT, "image": TEXT | {"shortage_at": 9.0}}
    )
    async with book_of(tmp_path) as book:
        book.put("a", figures)
        await book.flush()
    async with book_of(tmp_path) as book:
        assert book.get("a") == figures
        assert book.get("b") == Figures()


async def test_the_models_not_seen_for_longest_are_forgotten(tmp_path):
    clock = iter(range(1, 1000))
    async with book_of(tmp_path, now_ms=lambda: next(clock)) as book:
        for number in range(MOST_MODELS + 3):
            book.put(f"model {number}", Figures(host_bytes=number + 1))
            await book.flush()
    async with book_of(tmp_path) as book:
        assert book.get("model 2") == Figures()
        assert book.get("model 3") == Figures(host_bytes=4)


async def test_the_file_of_former_versions_is_read_once_and_removed(tmp_path):
    old = {"format": 1, "models": {"a": {"host_bytes": 5, "device_bytes": 0, "load_s": 2.0, "batches": {"text": TEXT}}}}
    (tmp_path / "models.json").write_text(json.dumps(old))
    async with book_of(tmp_path) as book:
        assert book.get("a") == Figures(host_bytes=5, load_s=2.0, batches={"text": TEXT})
        book.put("a", Figures(host_bytes=6))
        await book.flush()
    assert not (tmp_path / "models.json").exists()
    (tmp_path / "models.json").write_text(json.dumps(old))  # of an older program that ran in between
    async with book_of(tmp_path) as book:
        assert book.get("a").host_bytes == 6


@given(
    text=st.text()
    | st.sampled_from(['{"models": {"x": 3}}', "[" * 100_000, '{"models": {"x": {"host_bytes": 1e999}}}'])
)
def test_a_damaged_file_of_former_versions_costs_a_warm_up_and_nothing_else(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "models.json"
    file.write_text(text, encoding="utf-8", errors="replace")
    assert model_book._read(file) == {}


async def test_a_disk_that_takes_nothing_is_borne_and_written_to_later(tmp_path):
    async with book_of(tmp_path) as book:
        write, book._database.write = book._database.write, no_space
        book.put("a", Figures(host_bytes=5))
        await book.flush()
        with pytest.raises(errors.RetryLater):
            await book.keep_pin(MODEL, pin=True)
        assert book.pin_of(MODEL) is None
        book._database.write = write
        await book.flush()
    async with book_of(tmp_path) as book:
        assert book.get("a") == Figures(host_bytes=5)


async def no_space(_operation):
    raise errors.RetryLater("no space left on device")


async def test_what_a_pool_measured_is_what_the_next_one_begins_with(tmp_path):
    model = fake_model(tmp_path, ballast_mb=40, batch_tokens=0)
    async with book_of(tmp_path) as book, fake_pool(tmp_path, model, book=book) as pool:
        await embed(pool, [f"text {number} " * 40 for number in range(300)])
        await until(lambda: pool.snapshot().models[0].throughput > 0)  # told after the last batch
        status = pool.snapshot().models[0]
        assert status.cost_unit == "tokens"
        assert 1 <= status.batch_cost <= 1024  # more is out of memory in this engine
    async with book_of(tmp_path) as book:
        (figures,) = book._figures.values()
        assert figures.host_bytes > 40 << 20
        assert figures.load_s > 0
        assert figures.batches["text"]["size"] == status.batch_cost
        async with fake_pool(tmp_path, model, book=book) as pool:
            await pool.preload(MODEL)
            assert pool.snapshot().models[0].batch_cost <= 1024  # no warm-up beyond what was learned to fail


async def test_a_pin_made_by_hand_survives_a_restart_until_it_is_taken_away(tmp_path):
    model = fake_model(tmp_path)
    async with book_of(tmp_path) as book, fake_pool(tmp_path, model, book=book) as pool:
        await pool.preload(MODEL)
        await pool.pin(MODEL)
    async with book_of(tmp_path) as book, fake_pool(tmp_path, model, book=book) as pool:
        assert pool.snapshot().models[0].is_pinned  # before it is loaded, and after
        assert rows(await embed(pool, ["a"])) == expected(["a"])
        assert pool.snapshot().models[0].is_pinned
        await pool.let_go(MODEL)
        assert not pool.snapshot().models[0].is_pinned
    async with book_of(tmp_path) as book, fake_pool(tmp_path, model, book=book) as pool:
        assert not pool.snapshot().models[0].is_pinned


async def test_a_pin_of_the_settings_can_be_overruled_by_hand_and_comes_back_with_an_unload(tmp_path):
    model = fake_model(tmp_path, pinned=True)
    async with book_of(tmp_path) as book, fake_pool(tmp_path, model, book=book) as pool:
        assert pool.snapshot().models[0].is_pinned
        await pool.pin(MODEL, is_pinned=False)
    async with book_of(tmp_path) as book, fake_pool(tmp_path, model, book=book) as pool:
        assert not pool.snapshot().models[0].is_pinned
        await pool.let_go(MODEL)
    async with book_of(tmp_path) as book, fake_pool(tmp_path, model, book=book) as pool:
        assert pool.snapshot().models[0].is_pinned


@pytest.mark.parametrize(("keeps_pins", "pin"), [(True, True), (False, None)])
async def test_a_reset_forgets_what_was_measured_and_pins_only_if_it_forgets_all(tmp_path, keeps_pins, pin):
    async with book_of(tmp_path) as book:
        book.put("a", Figures(host_bytes=5, batches={"text": TEXT}))
        await book.flush()
        await book.keep_pin(MODEL, pin=True)
        await book._database.write(lambda c: book.clear_in(c, keeps_pins=keeps_pins))
        book.forget(keeps_pins=keeps_pins)
        assert (book.get("a"), book.pin_of(MODEL)) == (Figures(), pin)
    async with book_of(tmp_path) as book:
        assert (book.get("a"), book.pin_of(MODEL)) == (Figures(), pin)
        assert await book._database.read(lambda c: c.execute("SELECT count(*) FROM model_batch").fetchone()[0]) == 0


@pytest.mark.parametrize(
    ("what", "figures", "pin"),
    [("index", Figures(host_bytes=5), True), ("database", Figures(), True), ("all", Figures(), None)],
)
async def test_each_reset_forgets_of_the_models_what_it_names(tmp_path, what, figures, pin):
    world = await OrchestratorWorld(tmp_path).open()
    book = await ModelBook.open(world.database)
    book.put("a", Figures(host_bytes=5))
    await book.flush()
    await book.keep_pin(MODEL, pin=True)
    told = []
    await world.reset(what, models=book, forget_pins=lambda: told.append(what))
    for known in (book, await ModelBook.open(world.database)):
        assert (known.get("a"), known.pin_of(MODEL)) == (figures, pin)
    await world.close()
    assert told == (["all"] if what == "all" else [])
