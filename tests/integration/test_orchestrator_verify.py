"""verify: what does not agree is counted and left alone; told to repair, it is deleted or owed again."""

import asyncio
import sqlite3

import pytest
from orchestrator_world import OrchestratorWorld

from msearchd import errors
from msearchd.domain.asset import AssetState
from msearchd.domain.job import JobState, Step
from msearchd.domain.space import SpaceName
from msearchd.orchestrator.verify import Verifier
from msearchd.watch.status import ScanSummary

SPACE = SpaceName("minilm-1")


class Watcher:
    """Its folder can be compared, or not."""

    def __init__(self):
        self.changes = 0
        self.error = None

    async def scan_now(self, root):
        if self.error is not None:
            raise self.error
        return ScanSummary(root, b"", dirs=1, files=2, changes=self.changes)


@pytest.fixture
async def world(tmp_path):
    world = await OrchestratorWorld(tmp_path).open()
    for name in (b"a.txt", b"b.txt"):
        await world.save(name, f"words of {name}|and more")
    await world.settle()
    world.watcher = Watcher()
    world.said = []
    world.verifier = Verifier(
        database=world.database, catalog=world.catalog, queue=world.queue, store=world.store, watcher=world.watcher,
        recovery=world.recovery, arrears=world.arrears, begin_anew=world.said.append,
    )  # fmt: skip
    yield world
    await world.close()


async def test_an_index_in_step_is_clean_and_says_what_was_compared(world):
    reply = await world.verifier.verify(is_repair=False)
    assert reply.is_clean
    assert reply.sentences == []
    (space,) = reply.spaces
    assert (space.space, space.points_expected, space.points_found) == (SPACE, 4, 4)
    assert reply.folders[0].files == 2


async def test_missing_vectors_are_counted_and_owed_again_only_when_told(world):
    content = await world.content_of(b"a.txt")
    await world.store.delete_contents(SPACE, [content.uuid])
    found = await world.verifier.verify(is_repair=False)
    assert not found.is_clean
    assert found.spaces[0].missing == 1
    assert await world.open_jobs(b"a.txt") == []  # nothing was changed
    repaired = await world.verifier.verify(is_repair=True)
    assert (repaired.is_clean, repaired.is_repaired) == (False, True)
    assert await world.open_jobs(b"a.txt") == [(Step.EMBED, JobState.READY)]
    await world.settle()
    assert (await world.verifier.verify(is_repair=False)).is_clean
    assert await world.state(b"a.txt") is AssetState.INDEXED


async def test_vectors_that_nothing_refers_to_and_spaces_that_nobody_knows_are_dropped_only_when_told(world):
    from uuid import UUID

    points = world.store.points
    stranger = UUID(int=7)
    some = next(iter(points[SPACE].values()))
    points[SPACE][stranger] = type(some)(**{**_fields(some), "content": stranger})
    points[SpaceName("left-over")] = {UUID(int=8): some}
    found = await world.verifier.verify(is_repair=False)
    assert {space.space: space.orphans for space in found.spaces} == {SPACE: 1, "left-over": 1}
    assert len(points) == 2
    await world.verifier.verify(is_repair=True)
    assert list(points) == [SPACE]
    assert stranger not in points[SPACE]
    assert (await world.verifier.verify(is_repair=False)).is_clean


async def test_content_in_work_is_no_finding(world):
    await world.save(b"c.txt", "new words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    assert (await world.verifier.verify(is_repair=False)).is_clean


async def test_a_folder_that_cannot_be_compared_says_why(world):
    world.watcher.error = errors.RetryLater("the disk is away")
    reply = await world.verifier.verify(is_repair=False)
    assert reply.folders[0].is_checked is False
    assert "the disk is away" in reply.folders[0].reason


async def test_a_comparison_without_all_folders_is_not_complete(world):
    assert (await world.verifier.verify(is_repair=False)).is_complete
    world.watcher.error = errors.RetryLater("the disk is away")
    reply = await world.verifier.verify(is_repair=False)
    assert (reply.is_clean, reply.is_complete) == (True, False)


def tear(index):
    """Overwrite pages of an index, as a bad disk does."""
    return lambda c: c.execute(f"UPDATE {index}_data SET block = zeroblob(40) WHERE id > 10")


def lose(index):
    return lambda c: c.execute(f"INSERT INTO {index} ({index}) VALUES ('delete-all')")


def mix_up(c):
    """The right rows, other words."""
    ids = [row[0] for row in c.execute("SELECT id FROM segment WHERE text <> ''")]
    c.execute("INSERT INTO segment_words (segment_words) VALUES ('delete-all')")
    c.executemany("INSERT INTO segment_words (rowid, text, parts) VALUES (?, 'nonsense', '')", [(id_,) for id_ in ids])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (tear("segment_words"), "words of texts is damaged"),
        (tear("asset_names"), "file names is damaged"),
        (tear("dir_names"), "folder names is damaged"),
        (lose("segment_words"), "words of texts lacks"),
        (lose("asset_names"), "file names is damaged or does not agree"),
        (lose("dir_names"), "folder names is damaged or does not agree"),
        (mix_up, "does not find"),
    ],
)
async def test_a_text_index_that_does_not_agree_is_found_and_built_anew_only_when_told(world, harm, said):
    (world.folder / "below").mkdir()
    await world.save(b"below/c.txt", "ferry to the island")
    await world.settle()
    assert (await world.verifier.verify(is_repair=False)).is_clean
    await world.database.write(harm)
    for _ in range(2):  # found, and left as it is
        found = await world.verifier.verify(is_repair=False)
        assert not found.is_clean
        assert said in found.text_indexes[0]
        assert found.sentences == found.text_indexes
    assert (await world.verifier.verify(is_repair=True)).is_repaired
    assert (await world.verifier.verify(is_repair=False)).is_clean
    words = "SELECT count(*) FROM segment_words WHERE segment_words MATCH 'ferry'"
    names = "SELECT count(*) FROM asset_names WHERE asset_names MATCH 'txt'"
    folders = "SELECT count(*) FROM dir_names WHERE dir_names MATCH 'bel'"
    for question, count in ((words, 1), (names, 3), (folders, 1)):
        assert (await world.database.read(lambda c, q=question: c.execute(q).fetchone()[0])) == count
    await world.save(
        b"below/c.txt", "train to the mountains"
    )  # deleting its old words needs them to be as they were put
    await world.settle()
    assert (await world.verifier.verify(is_repair=False)).is_clean


async def test_a_text_index_in_doubt_does_not_make_the_database_a_damaged_one(world):
    await world.database.write(tear("segment_words"))
    await world.verifier.verify(is_repair=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await world.database.wait_damaged()
    assert world.said == []


async def test_a_disk_that_takes_nothing_more_ends_a_comparison_with_its_sentence(world, monkeypatch):
    monkeypatch.setattr("msearchd.orchestrator.verify._PATIENCE_S", 0.01)
    monkeypatch.setattr(world.watcher, "scan_now", lambda _: asyncio.Event().wait())

    def is_full(_):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with pytest.raises(errors.RetryLater):
        await world.database.write(is_full)
    reply = await world.verifier.verify(is_repair=False)
    assert not reply.folders[0].is_checked
    assert "disk is full" in reply.folders[0].reason


async def test_a_database_that_no_reindex_heals_begins_anew_and_says_so(world, monkeypatch):
    async def problems(*, is_quick=True):
        return ["row 5 missing from index"]

    monkeypatch.setattr(world.database, "problems", problems)
    found = await world.verifier.verify(is_repair=False)
    assert not found.is_clean
    assert world.said == []
    reply = await world.verifier.verify(is_repair=True)
    assert world.said == ["row 5 missing from index"]
    assert "made anew" in reply.sentences[0]


async def test_a_damaged_index_of_a_table_is_built_anew_in_place(world, monkeypatch):
    answers = [["row 5 missing from index"], []]

    async def problems(*, is_quick=True):
        return answers.pop(0)

    monkeypatch.setattr(world.database, "problems", problems)
    reply = await world.verifier.verify(is_repair=True)
    assert reply.is_repaired
    assert "built anew" in reply.sentences[0]
    assert world.said == []


def _fields(payload):
    return {name: getattr(payload, name) for name in payload.__dataclass_fields__}
