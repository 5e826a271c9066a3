"""Hot queries read by index: no plan has a SCAN of a table that grows with the files."""

import re

import catalog_world
import pytest

from msearchd.store.catalog import paths, scope, segments

#: Tables of one row a folder that is watched, a type, a space: they never grow with the files.
SMALL = {
    "root",
    "sqlite_sequence",
    "type_count",
    "total",
    "space",
    "intent",
    "asset_count",
    "asked",
    "up",
    "sub",
    "CONSTANT",
}
#: Run at start or by hand.
COLD = {
    "open_puts", "open_sweeps", "folded_as", "set_folded_as", "count_words_astray", "some_texts", "count_contents",
}  # fmt: skip
QUERIES = [
    (name, sql) for source in (paths.SQL, segments.SQL, scope.SQL) for name, sql in source.items() if name not in COLD
]


@pytest.fixture(scope="module")
def connection():
    c = catalog_world.connection()
    yield c
    c.close()


@pytest.mark.parametrize(("name", "sql"), QUERIES, ids=[name for name, _ in QUERIES])
def test_no_hot_query_scans(connection, name, sql):
    plan = connection.execute("EXPLAIN QUERY PLAN " + sql.replace(":list", "?2, ?3"), _values(sql)).fetchall()
    for *_, detail in plan:
        # A virtual table's own index (FTS5 MATCH, json_each) and a partial index of what is due are no scans of the table.
        scanned = re.match(r"SCAN (\w+)(.*)", detail)
        if scanned is None or "VIRTUAL TABLE INDEX" in detail:
            continue
        assert scanned[1] in SMALL or "dir_gone" in detail, f"{name}: {detail}"


def _values(sql):
    numbers = [int(number) for number in re.findall(r"\?(\d+)", sql.replace(":list", "?2, ?3"))]
    return [1] * max(numbers, default=0)


def test_the_check_itself_fails_for_a_scan(connection):
    with pytest.raises(AssertionError, match="SCAN asset"):
        test_no_hot_query_scans(connection, "bad", "SELECT * FROM asset WHERE size = ?1")
