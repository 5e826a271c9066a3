"""Migrations and named queries: SQL that lies in .sql files of a package.

A migration is a numbered file (`0001_jobs.sql`), applied once, in one transaction with its number. A query begins
with a line `-- name --  one sentence of purpose`.
"""

from __future__ import annotations

import importlib.resources
import re
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from msearchd import errors

if TYPE_CHECKING:
    from msearchd.aio.sqlite import Database

_MIGRATION_NAME: Final = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_QUERY_HEAD: Final = re.compile(r"^-- (\w+) --", re.MULTILINE)


async def migrate(database: Database, *, component: str, package: str) -> None:
    """Bring *component*'s tables to the newest version: the numbered .sql files of *package*, each in one transaction.

    Raises Misconfigured where the file is newer than the program: an older program never touches it.
    """
    scripts = sorted(
        (int(match[1]), entry.read_text(encoding="utf-8"))
        for entry in importlib.resources.files(package).iterdir()
        if (match := _MIGRATION_NAME.match(entry.name))
    )
    newest = scripts[-1][0] if scripts else 0
    have = await database.write(lambda c: _version(c, component))
    if have > newest:
        message = (
            f"the database was written by a newer msearchd ({component} version {have}, this program knows {newest})"
        )
        raise errors.Misconfigured(message, key="database", hint="install the newer version again; nothing was changed")
    for number, script in scripts:
        if number > have:
            await database.write(lambda c, n=number, s=script: _apply(c, component, n, s))  # type: ignore[misc]


def _version(connection: sqlite3.Connection, component: str) -> int:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS component_version(component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT"
    )
    row = connection.execute("SELECT version FROM component_version WHERE component=?", (component,)).fetchone()
    return int(row[0]) if row else 0


def _apply(connection: sqlite3.Connection, component: str, number: int, script: str) -> None:
    # Not executescript: it commits first. One statement after another stays inside our transaction.
    for statement in statements(script):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO component_version VALUES(?,?) ON CONFLICT(component) DO UPDATE SET version=excluded.version",
        (component, number),
    )


def statements(script: str) -> list[str]:
    """Split a script into complete statements (a trigger's inner semicolons do not split it)."""
    found: list[str] = []
    buffer = ""
    for line in script.splitlines(keepends=True):
        buffer += line
        code = re.sub(r"--.*", "", line).rstrip()
        if code.endswith(";") and sqlite3.complete_statement(buffer):
            found.append(buffer.strip())
            buffer = ""
    if re.sub(r"--.*", "", buffer).strip():
        found.append(buffer.strip())
    return found


def named_queries(package: str, filename: str = "queries.sql") -> Mapping[str, str]:
    """Queries of a .sql file by name. Raises Bug where one name stands twice: the first would be lost in silence."""
    text = (importlib.resources.files(package) / filename).read_text(encoding="utf-8")
    parts = _QUERY_HEAD.split(text)[1:]
    queries = {
        name: body.split("\n", 1)[1].strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
    if len(queries) * 2 != len(parts):
        doubled = sorted({name for name in parts[::2] if parts[::2].count(name) > 1})
        message = f"{package}/{filename} has more than one query named {', '.join(doubled)}"
        raise errors.Bug(message)
    return queries
