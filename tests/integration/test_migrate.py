"""Migrations: each file once, in order, never a changed one, and several callers at once."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from chassis.errors import ConfigurationError
from chassis.migrate import LEDGER, Migration, is_current, migrate

LEDGER_FILES = [f"ledger/{path.name}" for path in sorted(LEDGER.glob("[0-9]*.sql"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (id int);")
    (tmp_path / "0002_second.sql").write_text("ALTER TABLE first ADD note text;")
    (tmp_path / "readme.txt").write_text("no migration")
    return tmp_path


async def test_files_are_applied_in_order_once_the_ledgers_first(
    database: str, folder: Path
) -> None:
    assert not await is_current(database, "shop", (folder,))
    applied = await migrate(database, "shop", (folder,))
    own = ["service/0001_first.sql", "service/0002_second.sql"]
    assert applied == [Migration("shop", name) for name in [*LEDGER_FILES, *own]]
    assert await is_current(database, "shop", (folder,))
    assert await migrate(database, "shop", (folder,)) == []


async def test_a_new_file_is_all_that_a_later_release_applies(database: str, folder: Path) -> None:
    await migrate(database, "shop", (folder,))
    (folder / "0003_third.sql").write_text("CREATE INDEX ON first (id);")
    assert not await is_current(database, "shop", (folder,))
    assert await migrate(database, "shop", (folder,)) == [
        Migration("shop", "service/0003_third.sql")
    ]


async def test_an_applied_file_that_has_changed_is_refused(database: str, folder: Path) -> None:
    await migrate(database, "shop", (folder,))
    (folder / "0001_first.sql").write_text("CREATE TABLE first (id bigint);")
    with pytest.raises(
        ConfigurationError, match=r"service/0001_first\.sql was applied and has changed"
    ):
        await migrate(database, "shop", (folder,))


async def test_a_file_that_fails_leaves_nothing_behind(database: str, folder: Path) -> None:
    (folder / "0003_third.sql").write_text("CREATE TABLE second (id int); SELECT nonsense;")
    with pytest.raises(asyncpg.PostgresError):
        await migrate(database, "shop", (folder,))
    assert not await is_current(database, "shop", ())
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT to_regclass('shop.first')") is None
    finally:
        await connection.close()


async def test_several_callers_at_once_apply_each_file_once(database: str, folder: Path) -> None:
    results = await asyncio.gather(*(migrate(database, "shop", (folder,)) for _ in range(4)))
    assert sorted(len(one) for one in results) == [0, 0, 0, len(LEDGER_FILES) + 2]


async def test_services_have_a_schema_each_and_do_not_see_each_other(
    database: str, folder: Path
) -> None:
    await migrate(database, "shop", (folder,))
    assert not await is_current(database, "other", (folder,))
    assert len(await migrate(database, "other")) == len(LEDGER_FILES)
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT to_regclass('other.first')") is None
    finally:
        await connection.close()
