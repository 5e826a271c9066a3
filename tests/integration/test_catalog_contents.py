"""Contents, segments, spaces, intents and the sweep, on a real database."""

import pytest
from catalog_world import SPACE, World, everything_in_store, fingerprint, identified

from msearchd import errors
from msearchd.domain.asset import AssetState, content_uuid
from msearchd.domain.media import Extraction, Modality, Segment, SegmentKind
from msearchd.domain.query import Filters
from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.store.catalog.question import Question

BODY, OCR, METADATA = SegmentKind.BODY, SegmentKind.OCR, SegmentKind.METADATA
HOUR_MS = 3_600_000


@pytest.fixture
async def world(tmp_path):
    world = await World.open(tmp_path)
    yield world
    await world.close()


async def words(world, text):
    return [(one.content, one.kind, one.seq) for one in await world.catalog.words(Question.parse(text), limit=20)]


async def test_two_files_with_the_same_bytes_share_one_content(world):
    first, content = await world.put(b"a.txt", "ferry")
    second, same = await world.put(b"sub/b.txt", "ferry")
    assert first != second
    assert content.id == same.id
    assert same.live_spaces == {SPACE.name}
    assert (await world.catalog.content(content.id)).visible == 2


async def test_a_changed_file_leaves_its_old_content_orphaned_only_if_nobody_else_has_it(world):
    await world.put(b"a.txt", "ferry")
    _, shared = await world.put(b"b.txt", "ferry")
    await world.put(b"a.txt", "train")
    assert await world.catalog.sweepable(1 << 60, 0, 10) == []
    await world.put(b"b.txt", "car")
    assert [one.id for one in await world.catalog.sweepable(1 << 60, 0, 10)] == [shared.id]


async def test_a_file_that_comes_back_with_the_same_bytes_is_searchable_at_once(world):
    asset, content = await world.put(b"a.txt", "ferry")
    await world.write(lambda c: world.catalog.hide_file_in(c, world.root, b"a.txt"))
    assert await words(world, "ferry") == []
    again = await world.write(lambda c: world.catalog.see_file_in(c, world.root, b"a.txt", fingerprint(b"ferry")))
    assert again == asset
    assert await words(world, "ferry") == [(content.id, BODY, 0)]
    row = await world.write(lambda c: world.catalog.identified_in(c, again, identified(b"ferry")))
    assert row.live_spaces == {SPACE.name}


async def test_a_file_that_comes_back_with_other_bytes_is_not_found_by_the_old_ones(world):
    await world.put(b"a.txt", "ferry")
    await world.write(lambda c: world.catalog.hide_file_in(c, world.root, b"a.txt"))
    other = fingerprint(b"other bytes")
    await world.write(lambda c: world.catalog.see_file_in(c, world.root, b"a.txt", other))
    assert await words(world, "ferry") == []


async def test_a_removed_root_is_out_of_every_search_before_its_tree_is_hidden(world):
    await world.put(b"a.txt", "ferry")
    await world.write(lambda c: world.catalog.remove_root_in(c, world.root))
    assert await words(world, "ferry") == []
    assert await world.catalog.names("a.txt", limit=5) == []
    found = await world.store.search([everything_in_store()])
    assert await world.catalog.resolve(SPACE.name, found[0]) == []


async def test_extracting_twice_changes_nothing(world):
    _, content = await world.put(b"a.txt", "ferry|sea", live=False)
    extraction = Extraction((Segment(BODY, 0, "ferry"), Segment(BODY, 1, "sea")), {"title": "T"}, note="cut")
    before = await world.catalog.segments(content.id)
    for _ in range(2):
        await world.write(lambda c: world.catalog.extracted_in(c, content.id, extraction))
    assert await world.catalog.segments(content.id) == before
    assert await words(world, "ferry") == [(content.id, BODY, 0)]
    row = await world.catalog.content(content.id)
    assert (row.metadata, row.note, row.segments, row.is_extracted) == ({"title": "T"}, "cut", 2, True)


async def test_a_shorter_extraction_leaves_no_word_of_the_longer_one(world):
    _, content = await world.put(b"a.txt", "ferry sails|car drives")
    await world.write(
        lambda c: world.catalog.extracted_in(c, content.id, Extraction((Segment(BODY, 0, "ferry stays"),)))
    )
    assert await words(world, "sails") == []
    assert await words(world, "drives") == []
    assert await words(world, "stays") == [(content.id, BODY, 0)]
    await world.database.read(lambda c: c.execute("SELECT 1"))
    await world.write(
        lambda c: c.execute("INSERT INTO segment_words (segment_words) VALUES ('integrity-check')").fetchall()
    )


async def test_ocr_adds_its_segments_and_keeps_those_of_extract(world):
    _, content = await world.put(b"scan.pdf", "typed text", label="pdf", modality=Modality.DOCUMENT)
    first = Extraction(
        (Segment(BODY, 0, "typed text"), Segment(METADATA, 0, "Title")), ocr_pages=(2, 3), wants_ocr=True
    )
    await world.write(lambda c: world.catalog.extracted_in(c, content.id, first))
    row = await world.catalog.content(content.id)
    assert (row.needs_ocr, row.has_ocr, row.ocr_pages) == (True, False, (2, 3))
    read = Extraction((Segment(OCR, 0, "pixel text", page=2),), note="1 page unreadable")
    await world.write(lambda c: world.catalog.extracted_in(c, content.id, read, part=OCR))
    row = await world.catalog.content(content.id)
    assert (row.needs_ocr, row.has_ocr, row.segments, row.note) == (False, True, 3, "1 page unreadable")
    assert await world.catalog.segment_counts(content.id) == {BODY: 1, METADATA: 1, OCR: 1}
    assert await words(world, "pixel") == [(content.id, OCR, 0)]


async def test_a_scanned_book_of_thousands_of_pages_has_room(world):
    _, content = await world.put(b"book.pdf", "", data=b"scan", live=False)
    last = Segment(OCR, 25_000 * 10_000 + 9_999, "colophon", page=25_000)  # as media numbers them
    await world.write(lambda c: world.catalog.extracted_in(c, content.id, Extraction((last,)), part=OCR))
    assert await world.catalog.segments(content.id) == [last]
    assert await words(world, "colophon") == [(content.id, OCR, last.seq)]
    past = Extraction((Segment(OCR, 1 << 28, "too far"),))
    with pytest.raises(errors.BadAsset):
        await world.write(lambda c: world.catalog.extracted_in(c, content.id, past, part=OCR))


async def test_segments_that_come_later_make_the_space_incomplete_and_hide_nothing(world):
    _, content = await world.put(b"scan.pdf", "ferry")
    assert (await world.catalog.content(content.id)).live_models == {SPACE.model}
    read = Extraction((Segment(OCR, 0, "pixel text"),))
    await world.write(lambda c: world.catalog.extracted_in(c, content.id, read, part=OCR))
    row = await world.catalog.content(content.id)
    assert (row.live_spaces, row.live_models, row.placed_spaces) == (frozenset(), frozenset(), {SPACE.name})
    [points] = await world.store.search([everything_in_store()])
    assert len(await world.catalog.resolve(SPACE.name, points)) == 1
    await world.embed(row)
    assert (await world.catalog.content(content.id)).live_spaces == {SPACE.name}


async def test_a_model_counts_as_done_only_in_its_newest_space(world):
    _, content = await world.put(b"a.txt", "ferry")
    newer = Space(SpaceName("tiny-2"), SPACE.model, "f2", 12)
    await world.write(lambda c: world.catalog.put_space_in(c, newer))
    row = await world.catalog.content(content.id)
    assert row.live_spaces == {SPACE.name}
    assert row.live_models == frozenset()


async def test_one_space_answers_for_a_modality(world):
    newer = Space(SpaceName("tiny-2"), ModelKey("m2"), "f2", 5)
    await world.write(lambda c: world.catalog.put_space_in(c, newer))
    assert await world.catalog.active_space() is None
    for space in (SPACE, newer):
        await world.write(lambda c, name=space.name: world.catalog.set_active_space_in(c, name))
        assert await world.catalog.active_space() == space
    assert await world.catalog.spaces() == [SPACE, newer]


async def test_a_space_name_never_stands_for_two_spaces(world):
    with pytest.raises(errors.Bug):
        await world.write(lambda c: world.catalog.put_space_in(c, Space(SPACE.name, SPACE.model, "other", 12)))


async def test_points_without_a_live_row_are_never_shown(world):
    _, content = await world.put(b"a.txt", "ferry", live=False)
    await world.write(lambda c: world.catalog.intend_in(c, SPACE.name, content.id))
    for segment in await world.catalog.segments(content.id):
        world.store.put(SPACE.name, content, segment, [1.0] * 12, (1,))
    [points] = await world.store.search([everything_in_store()])
    assert len(points) == 1
    assert await world.catalog.resolve(SPACE.name, points) == []
    assert await world.catalog.open_intents() == [(SPACE.name, content.id)]
    await world.write(lambda c: world.catalog.live_in(c, SPACE.name, content.id, 1))
    assert len(await world.catalog.resolve(SPACE.name, points)) == 1
    await world.write(lambda c: world.catalog.settle_intents_in(c, SPACE.name, [content.id]))
    assert await world.catalog.open_intents() == []


async def test_the_sweep_takes_orphans_after_their_grace_and_remembers_the_points(world):
    _, content = await world.put(b"a.txt", "ferry")
    await world.put(b"b.txt", "car")
    world.now_ms = 10 * HOUR_MS
    await world.write(lambda c: world.catalog.hide_file_in(c, world.root, b"a.txt"))
    assert await world.catalog.sweepable(11 * HOUR_MS, 7200, 10) == []
    [due] = await world.catalog.sweepable(12 * HOUR_MS, 7200, 10)
    assert due.id == content.id
    owed = await world.write(lambda c: world.catalog.forget_content_in(c, content.id))
    assert owed == (SPACE.name,)
    uuid = content_uuid(content.content_hash)
    assert await world.catalog.open_sweeps() == [(SPACE.name, uuid)]
    assert await world.catalog.content(content.id) is None
    assert (await world.catalog.totals()).contents == 1
    await world.write(lambda c: world.catalog.settle_sweeps_in(c, SPACE.name, [uuid]))
    assert await world.catalog.open_sweeps() == []


async def test_the_sweep_also_remembers_points_that_were_only_begun(world):
    asset, content = await world.put(b"a.txt", "ferry", live=False)
    await world.write(lambda c: world.catalog.intend_in(c, SPACE.name, content.id))
    gone = await world.write(lambda c: world.catalog.remove_in(c, asset))
    assert gone.id == content.id
    assert await world.write(lambda c: world.catalog.forget_content_in(c, content.id)) == (SPACE.name,)
    assert await world.catalog.open_intents() == []


async def test_a_content_that_is_shown_again_is_not_forgotten(world):
    _, content = await world.put(b"a.txt", "ferry")
    await world.write(lambda c: world.catalog.hide_file_in(c, world.root, b"a.txt"))
    [due] = await world.catalog.sweepable(1 << 60, 0, 10)
    await world.put(b"copy.txt", "ferry")
    assert await world.write(lambda c: world.catalog.forget_content_in(c, due.id)) is None
    assert await words(world, "ferry") == [(content.id, BODY, 0)]


async def test_embedding_a_content_that_was_swept_meanwhile_makes_nothing_live(world):
    asset, content = await world.put(b"a.txt", "ferry", live=False)
    await world.write(lambda c: world.catalog.remove_in(c, asset))
    await world.write(lambda c: world.catalog.forget_content_in(c, content.id))
    assert await world.write(lambda c: world.catalog.live_in(c, SPACE.name, content.id, 1)) is False
    with pytest.raises(errors.NotFound):
        await world.write(lambda c: world.catalog.extracted_in(c, content.id, Extraction(())))


async def test_a_shared_content_outlives_the_removal_of_one_file(world):
    asset, content = await world.put(b"a.txt", "ferry")
    await world.put(b"b.txt", "ferry")
    assert await world.write(lambda c: world.catalog.remove_in(c, asset)) is None
    assert (await world.catalog.content(content.id)).visible == 1


async def test_files_gone_for_long_are_purged_with_their_empty_folders(world):
    await world.put(b"a/b/c.txt", "ferry")
    await world.put(b"a/d.txt", "car")
    world.now_ms = HOUR_MS
    while await world.write(lambda c: world.catalog.hide_tree_in(c, world.root, b"a/b")):
        pass
    assert await world.write(lambda c: world.catalog.purge_gone_in(c, before_ms=HOUR_MS - 1)) == []
    assert len(await world.write(lambda c: world.catalog.purge_gone_in(c, before_ms=HOUR_MS))) == 1
    assert await world.catalog.subdirs(world.root, b"a") == []
    assert await world.database.read(lambda c: c.execute("SELECT count(*) FROM dir").fetchone()[0]) == 2


async def test_expected_points_are_counted_without_counting(world):
    contents = [(await world.put(b"%d.txt" % i, f"ferry {i}|car {i}"))[1] for i in range(3)]
    assert await world.catalog.expected_points(SPACE.name) == 6
    found = {}
    async for batch in world.catalog.expected_contents(SPACE.name):
        found |= batch
    assert found == {one.uuid: 2 for one in contents}
    await world.write(lambda c: world.catalog.not_live_in(c, SPACE.name, contents[0].id))
    assert await world.catalog.expected_points(SPACE.name) == 4
    assert (await world.catalog.totals()).points == {SPACE.name: 4}


async def test_folders_of_a_content_are_those_of_all_its_visible_files(world):
    _, content = await world.put(b"x/y/a.txt", "ferry")
    await world.put(b"z/b.txt", "ferry")
    dirs = await world.catalog.dirs_of(content.id)
    names = await world.database.read(lambda c: {row[0] for row in c.execute(
        f"SELECT name FROM dir WHERE id IN ({','.join(map(str, dirs))})")})  # fmt: skip
    assert names == {b"", b"x", b"y", b"z"}
    await world.write(lambda c: world.catalog.hide_file_in(c, world.root, b"z/b.txt"))
    assert len(await world.catalog.dirs_of(content.id)) == 3


async def test_renaming_a_folder_changes_no_folder_id_and_moving_it_changes_ancestors(world):
    _, content = await world.put(b"x/y/a.txt", "ferry")
    await world.put(b"z/other.txt", "car")
    before = await world.catalog.dirs_of(content.id)
    renamed = await world.write(lambda c: world.catalog.move_tree_in(c, world.root, b"x/y", world.root, b"x/new"))
    assert renamed.is_rename
    assert await world.catalog.dirs_of(content.id) == before
    moved = await world.write(lambda c: world.catalog.move_tree_in(c, world.root, b"x/new", world.root, b"z/new"))
    assert not moved.is_rename
    assert await world.catalog.dirs_of(content.id) != before
    assert (await world.catalog.asset_by_path(b"/home/u/z/new/a.txt")).content == content.id
    below = await world.database.write(lambda c: list(world.catalog.assets_below_in(c, moved.dir_id)))
    assert len(below) == 1


@pytest.mark.parametrize(
    ("what", "contents", "files", "roots"), [("index", 0, 2, 1), ("database", 0, 0, 1), ("all", 0, 0, 0)]
)
async def test_a_reset_throws_away_what_it_names(world, what, contents, files, roots):
    await world.put(b"a.txt", "ferry")
    await world.put(b"b.txt", "car")
    await world.write(lambda c: world.catalog.reset_in(c, what))
    totals = await world.catalog.totals()
    assert (totals.contents, totals.segments, totals.assets, totals.points) == (contents, 0, files, {})
    assert totals.by_state[AssetState.PENDING] == files
    assert len(await world.catalog.roots()) == roots
    assert await words(world, "ferry") == []
    if roots:
        await world.write(lambda c: world.catalog.put_space_in(c, SPACE))
        await world.put(b"a.txt", "ferry")
        assert len(await words(world, "ferry")) == 1


async def test_texts_and_metadata_that_are_no_unicode_are_kept_as_far_as_they_are(world):
    _, content = await world.put(b"a.txt", "x", live=False)
    odd = Extraction(
        (Segment(BODY, 0, "lone \ud800 surrogate\x00ferry"),), {"title": "\udcff tag", "n": None, "size": 3}
    )
    await world.write(lambda c: world.catalog.extracted_in(c, content.id, odd))
    assert await words(world, "ferry") == [(content.id, BODY, 0)]
    assert (await world.catalog.content(content.id)).metadata == {"title": "? tag", "size": 3}


async def test_identifying_a_file_that_is_not_known_any_more_says_so(world):
    with pytest.raises(errors.NotFound):
        await world.write(lambda c: world.catalog.identified_in(c, 99, identified(b"x")))
    assert (await world.catalog.totals()).contents == 0


async def test_the_tree_is_read_as_the_watcher_wants_it(world):
    for i in range(4):
        await world.put(b"d%d/sub/f.txt" % i, f"text {i}", live=False)
    await world.write(lambda c: world.catalog.scanned_dir_in(
        c, world.root, b"d1", inode=5, mtime_ns=6, ctime_ns=7, signature=-8, scanned_ms=9))  # fmt: skip
    assert await world.catalog.directory(world.root, b"d0") is None
    known = await world.catalog.directory(world.root, b"d1")
    assert (known.inode, known.signature, known.scanned_ms) == (5, -8, 9)
    listed = [path for batch in [batch async for batch in world.catalog.directories(world.root)] for path, _ in batch]
    assert sorted(listed) == sorted([b"", *(b"d%d" % i for i in range(4)), *(b"d%d/sub" % i for i in range(4))])
    assert sorted(await world.catalog.subdirs(world.root, b"")) == [b"d0", b"d1", b"d2", b"d3"]
    assert await world.catalog.file(world.root, b"d0/sub/f.txt") == fingerprint(b"text 0")
    assert await world.catalog.file(world.root, b"d0/none") is None
    assert [len(batch) async for batch in world.catalog.assets_under(world.root, b"d2")] == [1]
    assert await world.catalog.count_files(world.root, b"d2") == 1


async def test_filters_know_only_what_exists(world):
    with pytest.raises(errors.BadRequest, match="in no watched folder") as refused:
        await world.catalog.scope(Filters(folders=(b"/etc",)))
    assert "msearch add" in refused.value.hint
