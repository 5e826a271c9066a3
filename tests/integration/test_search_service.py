"""One question, all lists, real catalog; the store and the model are tiny but behave."""

import asyncio
import math
import random
import struct
from dataclasses import replace

import pytest
from catalog_world import SPACE, World, embed_question
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msearchd import errors
from msearchd.domain.asset import RootState
from msearchd.domain.media import Modality, SegmentKind
from msearchd.domain.query import Filters, SearchQuery
from msearchd.search.asker import Asked
from msearchd.search.service import SearchService
from msearchd.settings.model import SearchSettings

PDF = {"label": "pdf", "mime": "application/pdf", "modality": Modality.DOCUMENT}


@pytest.fixture
async def world(tmp_path):
    world = await World.open(tmp_path)
    yield world
    await world.close()


class Questions:
    """What search.asker.Asker promises, with a model of texts alone: *embed* says (space, vectors) or None."""

    def __init__(self, embed):
        self._embed = embed

    async def modalities(self):
        return ()

    async def loading_s(self, modality):
        return None

    async def ask(self, modality, samples, *, role):
        assert modality == "text"
        found = [await self._embed(text) for text in samples]
        return None if None in found else Asked(found[0][0], tuple(vectors for _, vectors in found))


def service(world, embed=embed_question, **changes):
    return SearchService(world.catalog, world.store, Questions(embed), SearchSettings(**changes))


async def found(world, text, *, limit=10, embed=embed_question, **filters):
    reply = await service(world, embed).search(SearchQuery(text, limit, Filters(**filters)))
    return [hit.path.removeprefix(b"/home/u/").decode("utf-8", "replace") for hit in reply.hits]


@pytest.fixture
async def folder(world):
    """A small folder with its answers known."""
    await world.put(b"travel/esbjerg.txt", "The ferry to Esbjerg leaves at noon. Bring the invoice.")
    await world.put(b"travel/vessels.txt", "Vessels crossing the ocean carry cars and people every day")
    await world.put(b"bills/2019/invoice.pdf", "Amount due: 40 euro for the automobile", **PDF)
    await world.put(b"bills/receipt.txt", "payment received with thanks, a receipt for cash")
    await world.put(b"pets/kitten.txt", "A kitten plays with a puppy at home")
    await world.put(b"code/names.py", "def getUserName(max_wait_s): return ERR_2231", label="python")
    await world.put(b"pets/cat.jpg", "", label="jpeg", mime="image/jpeg", modality=Modality.IMAGE, data=b"pixels")
    return world


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("ferry to esbjerg", "travel/esbjerg.txt"),
        ("boat on the water", "travel/vessels.txt"),  # no word in common
        ("invoice.pdf", "bills/2019/invoice.pdf"),
        ("invoice", "bills/2019/invoice.pdf"),  # its name, although another text has the word
        ("bill for money", "bills/receipt.txt"),
        ("getUserName", "code/names.py"),
        ("user name", "code/names.py"),
        ("ERR_2231", "code/names.py"),
        ("cat.jpg", "pets/cat.jpg"),
        ("pet dog", "pets/kitten.txt"),
        ("2019/invoice", "bills/2019/invoice.pdf"),
        ('"leaves at noon"', "travel/esbjerg.txt"),
    ],
)
async def test_the_right_file_comes_first(folder, text, first):
    assert (await found(folder, text))[0] == first


async def test_all_words_beat_a_likeness_without_them(folder):
    await folder.put(b"z/harbour.txt", "ferry boat ship vessel ferry sea ocean water")
    await folder.put(b"z/err.txt", "the ferry said ERR_9 about nothing else at all")
    assert (await found(folder, "ferry ERR_9"))[0] == "z/err.txt"


async def test_a_hit_says_why_and_where(folder):
    reply = await service(folder).search(SearchQuery("ferry to Esbjerg"))
    hit = reply.hits[0]
    assert {rank.list for rank in hit.ranks} == {"words", "names", SPACE.name}
    assert all(rank.rank >= 1 for rank in hit.ranks)
    assert (hit.kind, hit.seq, hit.type_label, hit.modality) == (SegmentKind.BODY, 0, "txt", Modality.TEXT)
    assert [hit.snippet[start:end] for start, end in hit.highlights] == ["ferry", "Esbjerg"]
    assert (hit.size, hit.modified_ms, hit.online) == (55, 10**12, True)
    assert [report.name for report in reply.lists] == ["words", "names", SPACE.name]
    assert reply.missing == ()
    assert reply.took_ms > 0


async def test_a_name_alone_is_a_hit_without_a_passage(folder):
    [hit] = [
        hit for hit in (await service(folder).search(SearchQuery("cat.jpg"))).hits if hit.path.endswith(b"cat.jpg")
    ]
    assert (hit.kind, hit.seq, hit.snippet) == (None, None, "")


async def test_copies_are_one_hit_that_names_the_others(folder):
    await folder.put(b"copies/a.txt", "The ferry to Esbjerg leaves at noon. Bring the invoice.")
    reply = await service(folder).search(SearchQuery("ferry esbjerg"))
    [hit] = [hit for hit in reply.hits if b"Esbjerg" in hit.snippet.encode()]
    assert {hit.path, *hit.same_content} == {b"/home/u/travel/esbjerg.txt", b"/home/u/copies/a.txt"}


async def test_a_copy_with_the_name_asked_for_is_the_one_shown(folder):
    await folder.put(b"copies/timetable.txt", "The ferry to Esbjerg leaves at noon. Bring the invoice.")
    hit = (await service(folder).search(SearchQuery("timetable ferry"))).hits[0]
    assert hit.path == b"/home/u/copies/timetable.txt"


async def test_a_file_is_one_hit_at_its_best_place(folder):
    await folder.put(b"book.txt", "the sea is wide|a ferry on the sea to Ribe|ships|a ferry again")
    reply = await service(folder).search(SearchQuery("ferry Ribe"))
    hits = [hit for hit in reply.hits if hit.path == b"/home/u/book.txt"]
    assert [(hit.seq, "Ribe" in hit.snippet) for hit in hits] == [(1, True)]


async def test_excluded_words_hold_for_every_list(folder):
    assert "travel/esbjerg.txt" in await found(folder, "ferry")
    assert "travel/esbjerg.txt" not in await found(folder, "ferry -noon")
    assert "bills/2019/invoice.pdf" not in await found(folder, "invoice -automobile")


async def test_a_quoted_phrase_must_be_there(folder):
    assert await found(folder, '"ferry to Esbjerg"') == ["travel/esbjerg.txt"]
    assert await found(folder, '"Esbjerg to ferry"') == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"folders": (b"/home/u/travel",)}, {"travel/esbjerg.txt", "travel/vessels.txt"}),
        ({"types": ("pdf",)}, {"bills/2019/invoice.pdf"}),
        ({"folders": (b"/home/u/bills",), "types": ("text",)}, {"bills/receipt.txt"}),
    ],
)
async def test_filters_hold_for_every_list(folder, filters, expected):
    assert set(await found(folder, "ferry vessels invoice payment automobile", **filters)) == expected


async def test_hidden_files_do_not_use_up_the_candidates_of_the_store(world):
    for i in range(60):
        await world.put(b"gone/%d.txt" % i, f"ferry ferry ferry {i}")
    await world.put(b"here.txt", "a boat and a cat and a dog and a car and a house")
    while await world.write(lambda c: world.catalog.hide_tree_in(c, world.root, b"gone")):
        pass
    reply = await service(world, candidates=10).search(SearchQuery("ship", limit=5))
    assert [hit.path for hit in reply.hits] == [b"/home/u/here.txt"]
    assert len(world.store.searches) > 1


async def test_an_offline_folder_keeps_its_hits_and_says_so(folder):
    await folder.write(lambda c: folder.catalog.set_root_state_in(c, folder.root, RootState.OFFLINE, "unplugged"))
    hit = (await service(folder).search(SearchQuery("esbjerg"))).hits[0]
    assert (hit.path, hit.online) == (b"/home/u/travel/esbjerg.txt", False)


# -- lists that fail ----------------------------------------------------------------------------------------------------


async def test_a_store_that_is_down_is_left_out_and_named(folder):
    folder.store.error = errors.RetryLater("the store is down", hint="it restarts by itself")
    reply = await service(folder).search(SearchQuery("ferry esbjerg"))
    assert reply.hits[0].path == b"/home/u/travel/esbjerg.txt"
    assert reply.missing == ("the list of meaning is missing: the store is down (it restarts by itself)",)


async def test_a_model_that_hangs_costs_its_list_and_not_the_answer(folder):
    async def hangs(text):
        await asyncio.Event().wait()

    reply = await service(folder, hangs, query_timeout_s=0.2).search(SearchQuery("ferry esbjerg"))
    assert reply.hits[0].path == b"/home/u/travel/esbjerg.txt"
    assert [report.error for report in reply.lists if report.name == "meaning"] == ["no answer within 0.2 s"]


async def test_search_by_meaning_switched_off_misses_nothing(folder):
    async def off(text):
        return None

    reply = await service(folder, off).search(SearchQuery("ferry esbjerg"))
    assert reply.missing == ()
    assert reply.hits


async def test_nothing_answering_is_an_error_and_not_an_empty_answer(folder):
    folder.store.error = errors.RetryLater("the store is down")
    with pytest.raises(errors.RetryLater, match="no list answered"):
        await service(folder, weight_words=0, weight_names=0).search(SearchQuery("ferry"))


async def test_a_bug_in_a_list_is_not_swallowed(folder):
    async def broken(text):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await service(folder, broken).search(SearchQuery("ferry"))


@pytest.mark.parametrize("text", ["", "  \n ", "-only -exclusions"])
async def test_a_question_without_words_is_refused_with_what_to_do(folder, text):
    with pytest.raises(errors.BadRequest) as refused:
        await service(folder).search(SearchQuery(text))
    assert refused.value.hint


async def test_a_limit_below_one_is_refused(folder):
    with pytest.raises(errors.BadRequest):
        await service(folder).search(SearchQuery("ferry", limit=0))


async def test_an_unknown_folder_is_refused(folder):
    with pytest.raises(errors.BadRequest, match="in no watched folder"):
        await service(folder).search(SearchQuery("ferry", filters=Filters(folders=(b"/tmp/other",))))


@pytest.mark.parametrize("text", ["+++", "!?", '"', "…", "a" * 5000, "\x00ferry", "\ud800", "ferry\ud800 \udcff"])
async def test_odd_questions_are_answered(folder, text):
    assert isinstance(await found(folder, text), list)


# -- what never happens -------------------------------------------------------------------------------------------------

TEXTS = ("ferry boat", "ship on the sea", "invoice to pay", "cat and dog")
operations = st.lists(
    st.tuples(st.sampled_from(["put", "put_not_live", "hide", "hide_tree", "unlive", "move"]),
              st.sampled_from([b"a/x.txt", b"a/y.txt", b"b/x.txt", b"ferry.txt"]), st.sampled_from(TEXTS)),
    max_size=12,
)  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(operations=operations)
def test_search_never_shows_a_hidden_file_or_a_point_that_is_not_live(tmp_path_factory, operations):
    asyncio.run(_hidden_is_hidden(tmp_path_factory.mktemp("search"), operations))


async def _hidden_is_hidden(folder, operations):
    world = await World.open(folder)
    try:
        visible, live = {}, {}
        for what, path, text in operations:
            if what in {"put", "put_not_live"}:
                _, content = await world.put(path, text, live=what == "put" or live.get(text, False))
                visible[path] = (text, content)
                live[text] = live.get(text, False) or what == "put"
            elif what == "hide":
                await world.write(lambda c, path=path: world.catalog.hide_file_in(c, world.root, path))
                visible.pop(path, None)
            elif what == "hide_tree":
                while await world.write(lambda c: world.catalog.hide_tree_in(c, world.root, b"a")):
                    pass
                visible = {path: value for path, value in visible.items() if not path.startswith(b"a/")}
            elif what == "unlive" and path in visible:
                held, content = visible[path]
                await world.write(lambda c, id_=content.id: world.catalog.not_live_in(c, SPACE.name, id_))
                live[held] = False
        for question in ("ferry", "vessel", "x.txt", "payment", "ferry.txt"):
            reply = await service(world, query_timeout_s=5).search(SearchQuery(question, limit=20))
            shown = {path for hit in reply.hits for path in (hit.path, *hit.same_content)}
            assert shown <= {b"/home/u/" + path for path in visible}
            for hit in reply.hits:
                by_meaning = [rank for rank in hit.ranks if rank.list == SPACE.name]
                held, _ = visible[hit.path.removeprefix(b"/home/u/")]
                assert not by_meaning or live[held]
        assert {path for path, (text, _) in visible.items() if "ferry" in text} <= set(
            await _paths(world, "ferry"))  # fmt: skip
    finally:
        await world.close()


async def _paths(world, question):
    reply = await service(world, query_timeout_s=5).search(SearchQuery(question, limit=20))
    return [path.removeprefix(b"/home/u/") for hit in reply.hits for path in (hit.path, *hit.same_content)]


async def test_a_reranker_that_still_loads_costs_a_second_and_its_order(folder):
    async def loads(question, passages):
        await asyncio.Event().wait()

    searching = SearchService(
        folder.catalog,
        folder.store,
        Questions(embed_question),
        SearchSettings(),
        rerank=loads,
        rerank_loading_s=lambda: 6.0,
    )
    reply = await searching.search(SearchQuery("ferry esbjerg"))
    assert reply.hits[0].path == b"/home/u/travel/esbjerg.txt"
    assert reply.took_ms < 9000
    assert reply.retry_after_s == pytest.approx(5, abs=1)
    assert "rerank" in reply.missing[0]


# -- what is no nearer than chance ----------------------------------------------------------------------------------------


async def embed_anything(text):
    """As a real model: words that it does not know are near to something all the same, by chance."""
    space, vectors = await embed_question(text)
    if any(vectors.data):
        return space, vectors
    chance = random.Random(text)
    raw = [abs(chance.gauss(0, 1)) for _ in range(space.dim)]
    norm = math.hypot(*raw)
    return space, replace(vectors, data=struct.pack(f"<{space.dim}f", *(value / norm for value in raw)))


async def marks(world, text, **changes):
    reply = await service(world, embed_anything, **changes).search(SearchQuery(text))
    return {hit.path.removeprefix(b"/home/u/").decode(): hit.is_weak for hit in reply.hits}


async def test_of_questions_of_unknown_words_nearly_all_hits_are_marked_and_none_is_taken_away(folder):
    found = [await marks(folder, f"xqzv{number} blorf") for number in range(40)]
    assert all(found)
    assert sum(not all(marked.values()) for marked in found) <= 4  # two standard deviations: one or two are expected


async def test_what_is_near_without_a_word_in_common_is_not_marked(folder):
    assert (await marks(folder, "ship sea"))["travel/vessels.txt"] is False


@pytest.mark.parametrize("text", ["ferry", "invoice.pdf", "ferry xqzv"])
async def test_where_a_word_or_a_name_is_known_nothing_is_marked(folder, text):
    assert not any((await marks(folder, text)).values())


async def test_where_words_were_not_asked_nothing_is_marked(folder):
    assert not any((await marks(folder, "xqzv blorf", weight_words=0.0)).values())


async def test_a_level_that_cannot_be_learned_marks_nothing(folder):
    searching = service(folder, embed_anything)
    ask = folder.store.search

    async def search(searches):
        if len(searches) > 1:
            raise errors.RetryLater("the store restarts")
        return await ask(searches)

    folder.store.search = search
    reply = await searching.search(SearchQuery("xqzv blorf"))
    assert reply.hits
    assert not any(hit.is_weak for hit in reply.hits)


async def test_a_level_that_is_learned_slowly_holds_nobody_up_and_is_there_for_the_next_question(folder):
    searching = service(folder, embed_anything, query_timeout_s=1.0)
    ask, learning, may_go_on = folder.store.search, asyncio.Event(), asyncio.Event()

    async def search(searches):
        if len(searches) > 1:
            learning.set()
            await may_go_on.wait()
        return await ask(searches)

    folder.store.search = search
    async with asyncio.timeout(30):
        replies = await asyncio.gather(*(searching.search(SearchQuery("xqzv blorf")) for _ in range(2)))
    assert learning.is_set()
    assert not any(hit.is_weak for reply in replies for hit in reply.hits)
    before = len(folder.store.searches)
    may_go_on.set()
    reply = await searching.search(SearchQuery("xqzv blorf"))
    assert any(hit.is_weak for hit in reply.hits)
    assert len(folder.store.searches) <= before + 33  # the one learning went on


async def test_a_level_is_learned_once_and_again_when_there_is_twice_as_much(folder):
    searching = service(folder, embed_anything)
    for _ in range(3):
        await searching.search(SearchQuery("xqzv blorf"))
    before = len(folder.store.searches)
    for number in range(20):
        await folder.put(b"more/%d.txt" % number, f"a kitten number {number} plays with a puppy")
    await searching.search(SearchQuery("xqzv blorf"))
    await searching.search(SearchQuery("xqzv blorf"))
    assert len(folder.store.searches) - before == 32 + 2
