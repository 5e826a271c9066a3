"""The locator finds every key of every document, where it really stands."""

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from msearchd.settings.locate import locate

NAMES = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6),
    st.sampled_from(["a.b", "#", "=", "[x]", '"', "'", "]]", ""]),
)
SCALARS = st.one_of(
    st.integers(-9, 99).map(str),
    st.sampled_from(["true", "1.5e3", "2024-05-01T10:00:00Z", "2024-05-01 10:00:00", "inf", "0x1F"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"""a\n[b]\nc = 1 # "" \\" """', "'''\n[[x]]\n= ''''", '""""quoted""""', '""', "''", '""""""', "'#'", '"\\\\"']),
)  # fmt: skip
SPACE = st.sampled_from(["", " ", "\t", "  "])
BREAK = st.sampled_from(["", "\n", ' # note ] } = "\n', "\n\n  "])


def quoted(name):
    return (
        name
        if name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
        else json.dumps(name, ensure_ascii=False)
    )


class Writer:
    """Writes a random document and remembers where it put each key."""

    def __init__(self, draw):
        self.draw, self.text, self.spots = draw, "", {}

    def mark(self, path):
        line = self.text.count("\n") + 1
        self.spots.setdefault(path, (line, len(self.text) - (self.text.rfind("\n") + 1) + 1))

    def key(self, base, name):
        """A key of one part, or of two with a dot."""
        self.mark((*base, name))
        self.text += quoted(name)
        path = (*base, name)
        if self.draw(st.integers(0, 4)) == 0:
            below = self.draw(NAMES)
            self.text += self.draw(SPACE) + "." + self.draw(SPACE)
            path = (*path, below)
            self.mark(path)
            self.text += quoted(below)
        return path

    def value(self, path, depth):
        kind = self.draw(st.integers(0, 5)) if depth < 3 else 0
        if kind == 4:
            self.text += "["
            for index in range(count := self.draw(st.integers(0, 3))):
                self.text += self.draw(BREAK)
                self.mark((*path, index))
                self.value((*path, index), depth + 1)
                self.text += self.draw(BREAK)
                if index < count - 1 or self.draw(st.booleans()):
                    self.text += ","
            self.text += self.draw(BREAK) + "]"
        elif kind == 5:
            self.text += "{"
            names = self.draw(st.lists(NAMES, max_size=3, unique=True))
            for index, name in enumerate(names):
                self.text += self.draw(SPACE)
                self.pair(path, name, depth + 1)
                self.text += "," if index < len(names) - 1 else ""
            self.text += self.draw(SPACE) + "}"
        else:
            self.text += self.draw(SCALARS)

    def pair(self, base, name, depth=0):
        path = self.key(base, name)
        self.text += self.draw(SPACE) + "=" + self.draw(SPACE)
        self.value(path, depth)

    def lines(self, base):
        for name in self.draw(st.lists(NAMES, max_size=3, unique=True)):
            self.text += self.draw(SPACE)
            self.pair(base, name)
            self.text += self.draw(SPACE) + self.draw(st.sampled_from(["\n", " # = [note\n", "\n\n"]))

    def header(self, path, *, is_array, index):
        marks = ("[[", "]]") if is_array else ("[", "]")
        self.text += marks[0] + self.draw(SPACE)
        if is_array:
            self.mark((*path, index))
        self.mark(path)
        self.text += quoted(path[-1]) + self.draw(SPACE) + marks[1] + "\n"


@st.composite
def documents(draw):
    writer = Writer(draw)
    if draw(st.booleans()):
        writer.text += "# a comment with = and [brackets]\n"
    writer.lines(())
    taken = {path[0] for path in writer.spots}
    for name in draw(st.lists(NAMES.filter(lambda name: name not in taken), max_size=3, unique=True)):
        if draw(st.booleans()):
            writer.header((name,), is_array=False, index=0)
            writer.lines((name,))
        else:
            for index in range(draw(st.integers(1, 3))):
                writer.header((name,), is_array=True, index=index)
                writer.lines((name, index))
    return writer.text, writer.spots


def paths_of(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from paths_of(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield (*path, index)
            yield from paths_of(item, (*path, index))


@given(documents())
def test_every_key_and_item_is_found_where_it_was_written(written):
    text, spots = written
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # two dotted keys may clash; the rest of the examples are valid
    found = locate(text)
    assert set(found) == set(paths_of(document))
    assert {path: found[path] for path in spots} == spots


def test_the_generator_of_that_test_writes_valid_documents_most_of_the_time():
    valid = 0

    @given(documents())
    def count(written):
        nonlocal valid
        try:
            tomllib.loads(written[0])
            valid += bool(written[1])
        except tomllib.TOMLDecodeError:
            pass

    count()
    assert valid >= 20


def test_text_that_is_no_toml_does_not_hang_it():
    for text in ("[", "a = [", "{{{{", "a = {b = [", '"', "= = =", "]]]]", 'a = """x'):
        locate(text)


@given(st.text(max_size=60))
def test_any_text_at_all_ends(text):
    locate(text)


def test_tables_below_a_list_of_tables_belong_to_its_last_one():
    text = "[[m.n]]\nk = 1\n[m.n.sub]\nz = 2\n[[m.n]]\nk = 3\n[[m.n.deep]]\nq = 4\n"
    assert set(locate(text)) == set(paths_of(tomllib.loads(text))) | {("m", "n", 0, "sub")}
    assert locate(text)["m", "n", 1, "deep", 0, "q"] == (8, 1)
