"""The tables of the service's database, as they came to be."""

from __future__ import annotations

import sqlite3
from typing import Final

# Each brings a database of the version before it, 0 being an empty one, to its own.
_VERSIONS: Final = (
    """
CREATE TABLE keys (
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL, created REAL NOT NULL, revoked REAL
) STRICT;
CREATE TABLE sessions (
  tenant TEXT NOT NULL, id TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL, began INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, id)
) STRICT;
CREATE TABLE runs (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, session TEXT, code TEXT NOT NULL,
  created REAL NOT NULL, ended REAL, status TEXT, result BLOB, last INTEGER NOT NULL DEFAULT 0,
  forgotten INTEGER NOT NULL DEFAULT 0, key TEXT, digest BLOB NOT NULL, UNIQUE (tenant, key)
) STRICT;
CREATE INDEX runs_of_session ON runs (tenant, session, number);
CREATE INDEX runs_alive ON runs (number) WHERE ended IS NULL;
CREATE INDEX runs_by_age ON runs (ended) WHERE ended IS NOT NULL;
CREATE TABLE events (row INTEGER PRIMARY KEY, type TEXT NOT NULL, data BLOB NOT NULL) STRICT;
""",
    # What is large is in tables of its own: a list of runs reads none of it. `size`: bytes of a run, all told. A use of a blob is by an
    # event (its row) or by a Result (its run's number times 2**32).
    """
CREATE TABLE codes (run INTEGER PRIMARY KEY, code TEXT NOT NULL) STRICT;
CREATE TABLE results (run INTEGER PRIMARY KEY, result BLOB NOT NULL) STRICT;
CREATE TABLE sizes (run INTEGER PRIMARY KEY, tenant TEXT NOT NULL, bytes INTEGER NOT NULL) STRICT;
CREATE INDEX sizes_of_tenant ON sizes (tenant, bytes);
INSERT INTO codes SELECT number, code FROM runs;
INSERT INTO results SELECT number, result FROM runs WHERE result IS NOT NULL;
INSERT INTO sizes SELECT number, tenant, length(code) + ifnull(length(result), 0) FROM runs;
ALTER TABLE runs DROP COLUMN code;
ALTER TABLE runs DROP COLUMN result;
CREATE TABLE blobs (
  number INTEGER PRIMARY KEY, tenant TEXT NOT NULL, hash BLOB NOT NULL, data BLOB NOT NULL, UNIQUE (tenant, hash)
) STRICT;
CREATE TABLE uses (row INTEGER NOT NULL, blob INTEGER NOT NULL, PRIMARY KEY (row, blob)) STRICT, WITHOUT ROWID;
CREATE INDEX uses_of_blob ON uses (blob);
""",
)


def bring_up(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new database, or changes those of an older one; within a transaction. Raises sqlite3.Error, and ValueError
    for a database of a newer cellrun."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_VERSIONS):
        raise ValueError(f"it is of a newer cellrun (version {version}; this one knows {len(_VERSIONS)})")
    for script in _VERSIONS[version:]:
        for statement in script.split(";\n"):
            connection.execute(statement)
    if version < len(_VERSIONS):
        connection.execute(f"PRAGMA user_version={len(_VERSIONS)}")
