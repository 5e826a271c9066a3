"""A catalog to test with: its real tables, files put into it in one line, and a vector store with behaviour."""

import hashlib
import math
import re
import sqlite3
import struct
from array import array
from importlib import resources

from msearchd.aio.sqlite import Database, statements
from msearchd.domain.asset import AssetState, ContentHash, StatFingerprint, content_uuid
from msearchd.domain.media import Extraction, Identified, Modality, Segment, SegmentKind
from msearchd.domain.space import ModelKey, Space, SpaceName, Vectors
from msearchd.store.catalog import Catalog
from msearchd.store.vector_store import PointFilter, ScoredPoint, VectorSearch

#: A space of twelve notions: a text's vector counts their words. Near in meaning without a common word.
NOTIONS = (
    {"ferry", "ship", "boat", "vessel"}, {"sea", "ocean", "water"}, {"invoice", "bill", "payment", "receipt"},
    {"cat", "kitten", "pet"}, {"dog", "puppy"}, {"car", "automobile", "vehicle"}, {"house", "home", "building"},
    {"music", "song", "melody"}, {"tree", "forest", "wood"}, {"money", "cash", "budget"}, {"doctor", "physician"},
    {"train", "railway"},
)  # fmt: skip
SPACE = Space(SpaceName("tiny"), ModelKey("tiny"), "f1", len(NOTIONS))


def connection():
    """The catalog's tables in memory, as the daemon's connections are set up."""
    c = sqlite3.connect(":memory:", isolation_level=None)
    c.execute("PRAGMA foreign_keys=ON")
    files = (file for file in resources.files("msearchd.store.sql").iterdir() if file.name[:4].isdigit())
    for script in sorted(files, key=lambda file: file.name):
        for statement in statements(script.read_text()):
            c.execute(statement)
    return c


def fingerprint(data=b"", *, mtime_ns=10**18, inode=7):
    """What stat would say of a file with these bytes: other bytes, another fingerprint."""
    return StatFingerprint(size=len(data), mtime_ns=mtime_ns + sum(data), ctime_ns=mtime_ns, inode=inode)


def content_hash(data):
    return ContentHash(hashlib.sha256(data).digest())


def identified(data, *, stat=None, label="txt", mime="text/plain", modality=Modality.TEXT):
    return Identified(stat or fingerprint(data), content_hash(data), mime, label, modality)


def vector(text):
    words = re.findall(r"\w+", text.lower())
    raw = [float(sum(word.rstrip("s") in notion for word in words)) for notion in NOTIONS]
    norm = math.hypot(*raw)
    return [value / norm for value in raw] if norm else raw


class World:
    """A catalog on disk with a root at /home/u, and a tiny store beside it."""

    def __init__(self, database):
        self.database = database
        self.now_ms = 1_000
        self.catalog = Catalog(database, now_ms=lambda: self.now_ms)
        self.store = TinyStore()
        self.root = None

    @classmethod
    async def open(cls, folder):
        world = cls(await Database.open(folder / "catalog.db"))
        await world.catalog.open()
        world.root = await world.write(lambda c: world.catalog.add_root_in(c, b"/home/u"))
        await world.write(lambda c: world.catalog.put_space_in(c, SPACE))
        return world

    async def write(self, operation):
        return await self.database.write(operation)

    async def put(self, path, text="", *, label="txt", mime="text/plain", modality=Modality.TEXT, mtime_ns=10**18,
                  data=None, live=True, kind=SegmentKind.BODY):  # fmt: skip
        """A file, identified, extracted (passages split at "|") and, if *live*, embedded. Returns (asset, content)."""
        data = text.encode() if data is None else data
        stat = fingerprint(data, mtime_ns=mtime_ns)
        passages = [part for part in text.split("|") if part]

        def write(c):
            asset = self.catalog.see_file_in(c, self.root, path, stat)
            content = self.catalog.identified_in(
                c, asset, identified(data, stat=stat, label=label, mime=mime, modality=modality)
            )
            segments = tuple(Segment(kind, seq, passage) for seq, passage in enumerate(passages))
            self.catalog.extracted_in(c, content.id, Extraction(segments))
            self.catalog.set_state_in(c, asset, AssetState.INDEXED)
            return asset, content

        asset, content = await self.write(write)
        if live:
            await self.embed(content)
        return asset, content

    async def embed(self, content):
        """Vectors of its segments into the store, and live in the catalog."""
        segments = [one for one in await self.catalog.segments(content.id) if one.text]
        dirs = await self.catalog.dirs_of(content.id)
        for segment in segments:
            self.store.put(SPACE.name, content, segment, vector(segment.text), dirs)
        await self.write(lambda c: self.catalog.live_in(c, SPACE.name, content.id, len(segments)))

    async def relocate(self, content):
        self.store.set_dirs_of(content_uuid(content.content_hash), await self.catalog.dirs_of(content.id))

    async def close(self):
        await self.database.close()


async def embed_question(text):
    """The question's vector as the pool hands it on."""
    return SPACE, Vectors(struct.pack(f"<{SPACE.dim}f", *vector(text)), 1, SPACE.dim)


def everything_in_store(where=None):
    """A question that every point of the tiny space answers."""
    return VectorSearch(SPACE.name, Vectors(struct.pack("<12f", *[1.0] * 12), 1, 12), 100, where or PointFilter())


class TinyStore:
    """Exact search in memory, with the promises of the protocol that search needs."""

    def __init__(self):
        self.points = {}
        self.searches = []
        self.error = None

    def put(self, space, content, segment, values, dirs):
        payload = {"dirs": set(dirs), "label": content.type_label, "size": content.size, "modality": content.modality}
        self.points[space, content_uuid(content.content_hash), segment.kind, segment.seq] = (values, payload)

    def set_dirs_of(self, uuid, dirs):
        for (_, owner, _, _), (_, payload) in self.points.items():
            if owner == uuid:
                payload["dirs"] = set(dirs)

    async def search(self, searches):
        self.searches += searches
        if self.error is not None:
            raise self.error
        return [self._answer(one) for one in searches]

    def _answer(self, search):
        asked = array("f", bytes(search.vector.data))
        wanted = search.filter
        scored = []
        for (space, uuid, kind, seq), (values, payload) in self.points.items():
            admitted = (
                space == search.space
                and (not wanted.contents or uuid in wanted.contents)
                and (not wanted.any_dir or payload["dirs"] & set(wanted.any_dir))
                and (not wanted.type_labels or payload["label"] in wanted.type_labels)
                and (wanted.min_size is None or payload["size"] >= wanted.min_size)
                and (wanted.max_size is None or payload["size"] <= wanted.max_size)
            )
            score = sum(a * b for a, b in zip(asked, values, strict=True))
            if admitted and score > 0:
                scored.append(ScoredPoint(uuid, kind, seq, score))
        return sorted(scored, key=lambda point: (-point.score, point.content, point.seq))[: search.limit]
