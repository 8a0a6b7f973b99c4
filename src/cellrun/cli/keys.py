"""`cellrun keys`: the service's keys, in its database, whether it runs or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cellrun.cli.serve import need_service
from cellrun.settings import Settings, SettingsError

if TYPE_CHECKING:
    from cellrun.service.database import Database


def create(settings: Settings, name: str, tenant: str) -> int:
    """Prints the key. Raises ValueError, SettingsError."""
    with _opened(settings) as database:
        from cellrun.service.identity import new_key

        key, row = new_key(tenant, name)
        with database.transaction():
            database.add_key(row)
    print(key)
    return 0


def show(settings: Settings) -> int:
    with _opened(settings) as database:
        for row in database.all_keys():
            revoked = "" if row.revoked is None else f"revoked {_date(row.revoked)}"
            print("\t".join([row.id, row.tenant, row.name, _date(row.created), revoked]).rstrip())
    return 0


def revoke(settings: Settings, id: str) -> int:
    """Raises SettingsError where there is no such key."""
    with _opened(settings) as database:
        with database.transaction():
            done = database.revoke_key(id, time.time())
    if not done:
        raise SettingsError(f"there is no key {id!r} that could be revoked: `cellrun keys list` shows them")
    return 0


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    need_service()
    from cellrun.service.database import Database
    from cellrun.service.store import FILE

    folder = settings.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = Database(folder / FILE)
    except OSError as error:
        raise SettingsError(f"the folder {folder} cannot be used for data: {error}") from None
    try:
        yield database
    finally:
        database.close()


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
