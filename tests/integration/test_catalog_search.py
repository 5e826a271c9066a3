"""Words, names and filters on a real database."""

import pytest
from catalog_world import World, everything_in_store, fingerprint

from msearchd import errors
from msearchd.domain.media import Modality
from msearchd.domain.query import Filters
from msearchd.store.catalog import scope as scopes
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.resolve import Wanted

IMAGE = {"label": "jpeg", "mime": "image/jpeg", "modality": Modality.IMAGE}
PDF = {"label": "pdf", "mime": "application/pdf", "modality": Modality.DOCUMENT}
DAY_MS = 86_400_000


@pytest.fixture
async def world(tmp_path):
    world = await World.open(tmp_path)
    yield world
    await world.close()


async def words(world, text, **filters):
    scope = await world.catalog.scope(Filters(**filters))
    found = await world.catalog.words(Question.parse(text), scope, limit=20)
    return [(await paths(world, one.content))[0] for one in found]


async def paths(world, content):
    rows = await world.database.read(
        lambda c: c.execute("SELECT id FROM asset WHERE content=? AND gone_ms IS NULL", (content,)).fetchall())  # fmt: skip
    return [(await world.catalog.asset(row[0])).relative.decode("utf-8", "replace") for row in rows]


async def names(world, text, limit=20, **filters):
    scope = await world.catalog.scope(Filters(**filters))
    found = await world.catalog.names(text, scope, limit=limit)
    return [(await world.catalog.asset(one.asset)).relative.decode("utf-8", "replace") for one in found]


# -- words --------------------------------------------------------------------------------------------------------------


async def test_a_passage_with_all_words_comes_before_one_with_some(world):
    await world.put(b"one.txt", "ferry ferry ferry ferry")
    await world.put(b"both.txt", "a long text about many things, a ferry among them, and an invoice at its very end")
    assert await words(world, "ferry invoice") == ["both.txt", "one.txt"]


async def test_words_side_by_side_come_before_words_apart(world):
    await world.put(b"apart.txt", "sea and north and sea and north and sea and north")
    await world.put(b"side.txt", "far away in the cold north sea there is a long story about nothing in particular")
    assert (await words(world, "north sea"))[0] == "side.txt"


async def test_rarer_words_say_more(world):
    for i in range(30):
        await world.put(b"n%d.txt" % i, f"report number {i}", live=False)
    await world.put(b"rare.txt", "report esbjerg", live=False)
    assert (await words(world, "report esbjerg harbour"))[0] == "rare.txt"


async def test_a_long_file_does_not_take_all_places(world):
    await world.put(b"book.txt", "|".join(f"ferry chapter {i}" for i in range(50)), live=False)
    await world.put(b"note.txt", "one ferry in a long note that says many other things as well", live=False)
    found = await world.catalog.words(Question.parse("ferry"), limit=10)
    assert len({one.content for one in found}) == 2


async def test_a_filter_reads_on_until_it_has_found_what_is_left(world):
    for i in range(150):
        await world.put(b"a/n%d.txt" % i, f"ferry ferry ferry {i}", live=False)
    await world.put(
        b"b/only.txt", "in a long text somewhere near the end there is one ferry and not more than that", live=False
    )
    assert await words(world, "ferry", folders=(b"/home/u/b",)) == ["b/only.txt"]
    everything = scopes.Scope(filters=Filters(max_size_bytes=10**9))  # as where a filter leaves too many to list
    found = await world.catalog.words(Question.parse("ferry"), everything, limit=200)
    assert len(found) == 151


async def test_hidden_files_never_crowd_out_visible_ones(world):
    for i in range(100):
        await world.put(b"gone/n%d.txt" % i, f"ferry ferry ferry {i}", live=False)
    await world.put(b"here.txt", "a text with one ferry in it, and much else besides, to rank it low", live=False)
    while await world.write(lambda c: world.catalog.hide_tree_in(c, world.root, b"gone")):
        pass
    assert await words(world, "ferry") == ["here.txt"]


async def test_excluded_words_hold_for_the_whole_file(world):
    _, content = await world.put(b"a.txt", "plan|draft", live=False)
    _, other = await world.put(b"b.txt", "plan", live=False)
    question = Question.parse("plan -draft")
    assert await world.catalog.satisfying(question, {content.id, other.id}) == {other.id}
    phrase = Question.parse('"plan"')
    assert await world.catalog.satisfying(phrase, {content.id, other.id}) == {content.id, other.id}


# -- names --------------------------------------------------------------------------------------------------------------


async def test_exact_names_come_first_then_beginnings_then_words(world):
    for name in ("my invoice of may.pdf", "invoices.txt", "invoice.pdf", "preinvoice.md", "unrelated.txt"):
        await world.put(name.encode(), name, live=False)
    assert await names(world, "invoice") == ["invoice.pdf", "my invoice of may.pdf", "invoices.txt", "preinvoice.md"]
    assert (await names(world, "INVOICE.PDF"))[0] == "invoice.pdf"
    exact = await world.catalog.names("invoice", limit=9)
    assert [one.is_exact for one in exact] == [True, False, False, False]


async def test_a_path_finds_the_file_in_that_folder_first(world):
    for folder in ("2018", "2019", "2020"):
        await world.put(f"bills/{folder}/ferry.pdf".encode(), folder, live=False)
    assert (await names(world, "2019/ferry.pdf"))[0] == "bills/2019/ferry.pdf"
    assert (await names(world, "bills/2020/ferry"))[0] == "bills/2020/ferry.pdf"


async def test_words_may_be_in_the_folders_name(world):
    await world.put(b"North Sea/IMG_0001.jpg", "x", live=False)
    await world.put(b"North Sea/invoice.txt", "y", live=False)
    await world.put(b"elsewhere/invoice.txt", "z", live=False)
    assert (await names(world, "sea invoice"))[0] == "North Sea/invoice.txt"
    assert set(await names(world, "north sea")) == {"North Sea/IMG_0001.jpg", "North Sea/invoice.txt"}


@pytest.mark.parametrize("asked", ["🎉", "🎉 party", "party🎉", '"🎉"', "🎉 -rocket"])
async def test_a_file_is_found_by_the_emoji_in_its_name(world, asked):
    for name in ("🎉 party.txt", "x🚀.md", "rocket 🎉🚀.md", "party.md"):
        await world.put(name.encode(), "", live=False)
    found = await names(world, asked)
    assert found[0] == "🎉 party.txt"
    assert "x🚀.md" not in found
    assert (await names(world, "🚀"))[0] == "x🚀.md"


async def test_renaming_a_folder_is_found_by_its_new_name_alone(world):
    await world.put(b"old place/a.txt", "x", live=False)
    await world.write(lambda c: world.catalog.move_tree_in(c, world.root, b"old place", world.root, b"harbour"))
    assert await names(world, "harbour") == ["harbour/a.txt"]
    assert await names(world, "place") == []


async def test_short_words_unspaced_scripts_and_broken_names_are_found(world):
    for name in (b"a1.py", "発票 2019.pdf".encode(), b"bad\xff\xfename.txt", "Ünïcode.TXT".encode()):
        await world.put(name, name.decode("utf-8", "replace"), live=False)
    assert await names(world, "a1") == ["a1.py"]
    assert await names(world, "発票") == ["発票 2019.pdf"]
    assert await names(world, "票") == ["発票 2019.pdf"]
    assert await names(world, "name") == ["bad\ufffd\ufffdname.txt"]
    assert await names(world, "unicode.txt") == ["Ünïcode.TXT"]


async def test_a_path_finds_its_file_among_hundreds_of_that_name(world):
    await world.put(b"zoo/readme.md", "here", live=False)
    for i in range(250):
        await world.put(b"p%d/readme.md" % i, f"text {i}", live=False)
    await world.put(b"last/readme.md", "there", live=False)
    assert (await names(world, "zoo/readme.md"))[0] == "zoo/readme.md"
    assert (await names(world, "last/readme"))[0] == "last/readme.md"


@pytest.mark.parametrize("few_contents", [5000, 0], ids=["listed", "conditions"])
async def test_a_filter_finds_its_file_among_hundreds_of_that_name(world, monkeypatch, few_contents):
    if not few_contents:
        monkeypatch.setattr(scopes, "_LOOKED_AT", -1)
    for i in range(250):
        await world.put(b"p%d/readme.md" % i, f"text {i}", live=False)
    for folder in (b"p0", b"p130", b"p249"):
        assert await names(world, "readme", folders=(b"/home/u/" + folder,)) == [folder.decode() + "/readme.md"]


async def test_a_name_with_a_little_of_the_question_is_chance(world):
    await world.put(b"sea.txt", "x", live=False)
    assert await names(world, "north sea ferry invoice harbour") == []


async def test_hidden_files_are_found_by_no_name(world):
    await world.put(b"invoice.pdf", "x", live=False)
    await world.write(lambda c: world.catalog.hide_file_in(c, world.root, b"invoice.pdf"))
    assert await names(world, "invoice.pdf") == []


async def test_a_file_that_is_not_identified_yet_is_found_by_its_name(world):
    await world.write(lambda c: world.catalog.see_file_in(c, world.root, b"new.bin", fingerprint(b"x")))
    [found] = await world.catalog.names("new.bin", limit=5)
    assert (found.content, found.is_exact) == (None, True)


# -- filters ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def mixed(world):
    await world.put(b"pics/a.jpg", "ferry a", **IMAGE, mtime_ns=1 * DAY_MS * 10**6)
    await world.put(b"pics/deep/b.jpeg", "ferry b", **IMAGE, mtime_ns=2 * DAY_MS * 10**6)
    await world.put(b"docs/c.pdf", "ferry c", **PDF, mtime_ns=3 * DAY_MS * 10**6)
    await world.put(b"docs/d.txt", "ferry d " + "x" * 1000, mtime_ns=4 * DAY_MS * 10**6)
    return world


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"folders": (b"/home/u/pics",)}, {"pics/a.jpg", "pics/deep/b.jpeg"}),
        ({"folders": (b"/home/u/pics/deep/", b"/home/u/docs")}, {"pics/deep/b.jpeg", "docs/c.pdf", "docs/d.txt"}),
        ({"folders": (b"/home",)}, {"pics/a.jpg", "pics/deep/b.jpeg", "docs/c.pdf", "docs/d.txt"}),
        ({"types": ("pdf",)}, {"docs/c.pdf"}),
        ({"types": ("jpg",)}, {"pics/a.jpg"}),
        ({"types": ("JPEG",)}, {"pics/a.jpg", "pics/deep/b.jpeg"}),
        ({"types": (".jpeg",)}, {"pics/deep/b.jpeg"}),
        ({"types": ("image",)}, {"pics/a.jpg", "pics/deep/b.jpeg"}),
        ({"types": ("image/*", "text/plain")}, {"pics/a.jpg", "pics/deep/b.jpeg", "docs/d.txt"}),
        ({"types": ("audio",)}, set()),
        ({"types": (".nothing",)}, set()),
        ({"modified_after_ms": 2 * DAY_MS}, {"pics/deep/b.jpeg", "docs/c.pdf", "docs/d.txt"}),
        ({"modified_before_ms": 2 * DAY_MS}, {"pics/a.jpg"}),
        ({"min_size_bytes": 100}, {"docs/d.txt"}),
        ({"max_size_bytes": 100, "types": ("pdf", "txt")}, {"docs/c.pdf"}),
        ({"folders": (b"/home/u/docs",), "modified_after_ms": 4 * DAY_MS, "types": ("text",)}, {"docs/d.txt"}),
        ({"modified_after_ms": 10**30}, set()),
    ],
)
@pytest.mark.parametrize("few_contents", [5000, 0], ids=["listed", "conditions"])
async def test_every_list_obeys_every_filter(mixed, monkeypatch, filters, expected, few_contents):
    """Both ways: few contents, listed by id; many, narrowed by the store's conditions and checked after."""
    monkeypatch.setattr(scopes, "FEW_CONTENTS", few_contents)
    if not few_contents:
        monkeypatch.setattr(scopes, "_LOOKED_AT", -1)
    scope = await mixed.catalog.scope(Filters(**filters))
    assert (scope.contents is not None) == bool(few_contents)
    assert set(await words(mixed, "ferry", **filters)) == expected
    found = await mixed.catalog.names("pdf txt jpg jpeg", scope, limit=20)
    assert {(await mixed.catalog.asset(one.asset)).relative.decode() for one in found} <= expected
    near = []
    if scope.point_filter is not None:
        [points] = await mixed.store.search([everything_in_store(scope.point_filter)])
        near = await mixed.catalog.resolve("tiny", points, scope)
    assert {(await paths(mixed, one.content))[0] for one in near} == expected


async def test_a_copy_outside_the_folder_does_not_hide_the_one_inside(world):
    await world.put(b"a/x.txt", "ferry")
    await world.put(b"b/x.txt", "ferry")
    scope = await world.catalog.scope(Filters(folders=(b"/home/u/b",)))
    [found] = await world.catalog.words(Question.parse("ferry"), scope, limit=5)
    [shown], _ = await world.catalog.show([Wanted(found.content, None)], [], Question.parse("ferry"), scope)
    assert shown.path == b"/home/u/b/x.txt"
    assert shown.same_content == (b"/home/u/a/x.txt",)


async def test_a_folder_whose_name_begins_alike_is_another_folder(world):
    await world.put(b"doc/a.txt", "ferry")
    await world.put(b"docs/b.txt", "ferry too")
    assert await words(world, "ferry", folders=(b"/home/u/doc",)) == ["doc/a.txt"]


@pytest.mark.parametrize(
    "filters",
    [
        {"folders": (b"relative",)},
        {"folders": (b"/home/u/none",)},
        {"folders": (b"/other",)},
        {"modified_after_ms": 5, "modified_before_ms": 5},
        {"min_size_bytes": 2, "max_size_bytes": 1},
    ],
)
async def test_filters_that_make_no_sense_are_refused_with_what_to_do(world, filters):
    with pytest.raises(errors.BadRequest) as refused:
        await world.catalog.scope(Filters(**filters))
    assert refused.value.hint


async def test_a_filter_by_a_broken_folder_name_works(world):
    await world.put(b"bad\xff/a.txt", "ferry")
    assert len(await words(world, "ferry", folders=(b"/home/u/bad\xff",))) == 1
