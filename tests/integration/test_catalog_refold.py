"""A database of a program that knew no signs in names: nothing of it goes wrong, and all its names are found by them."""

import pytest
from catalog_world import World, fingerprint

from msearchd.domain.query import Filters
from msearchd.store.catalog import fold, text_indexes
from msearchd.store.catalog.refold import refold

NAMES = ("rocket 🚀.txt", "plain.txt", "Übersicht.txt", "5 € of it.txt")


@pytest.fixture
async def world(tmp_path):
    world = await World.open(tmp_path)
    for name in NAMES:
        await world.put(f"🎉 party/{name}".encode(), f"the words of {name[:2]}")
    yield world
    await world.close()


def as_before(c):
    """What an older program would have written: nothing of signs."""
    c.execute("UPDATE asset SET name_short = '' WHERE name_key GLOB '*[^ -~]*'")
    c.execute("UPDATE dir_name SET name_short = '' WHERE name_key GLOB '*[^ -~]*'")


async def found(world, text):
    scope = await world.catalog.scope(Filters())
    rows = [await world.catalog.asset(one.asset) for one in await world.catalog.names(text, scope, limit=10)]
    return {row.path.rpartition(b"/")[2].decode() for row in rows}


async def test_names_of_an_older_program_are_found_by_their_signs_afterwards(world):
    await world.write(as_before)
    assert await found(world, "🚀") == await found(world, "€") == await found(world, "🎉") == set()
    assert await refold(world.database) == 3  # two files and the folder
    assert await found(world, "🚀") == {"rocket 🚀.txt"}
    assert await found(world, "€") == {"5 € of it.txt"}
    assert await found(world, "🎉") == set(NAMES)
    assert await world.write(text_indexes.problems_in) == {}


async def test_it_is_done_once_for_each_way_of_folding(world, monkeypatch):
    await refold(world.database)
    await world.write(as_before)
    assert await refold(world.database) == 0
    monkeypatch.setattr(fold, "FORM", fold.FORM + 1)
    assert await refold(world.database) == 3


async def test_an_older_name_that_moves_or_ends_before_that_leaves_the_index_sound(world):
    await world.write(as_before)

    def move(c):
        data = b"the words of ro"
        world.catalog.move_file_in(
            c, world.root, "🎉 party/rocket 🚀.txt".encode(), world.root, "rocket 🚀.txt".encode(), fingerprint(data)
        )
        return text_indexes.problems_in(c)

    assert await world.write(move) == {}
    assert await found(world, "🚀") == {"rocket 🚀.txt"}

    def end(c):
        c.execute("DELETE FROM asset WHERE name_key GLOB '*[^ -~]*'")
        return text_indexes.problems_in(c)

    assert await world.write(end) == {}
    assert await found(world, "rocket") == set()
