import asyncio, time
from tests.integration.test_revisits import Revising, keep, settings, driver, db
from tests.integration.kit import *
async def test_drain(settings, db):
    await keep(db, 60000)
    stage = Revising("two")
    async with running(stage, settings) as w:
        await until("some", lambda: db.value("SELECT count(*) > 500 FROM history"))
        for _ in range(4):
            b = time.monotonic(); await w.effects.drain(b + 2.0); print("\ndrain during walk", round(time.monotonic() - b, 3)); w.effects.is_closed = False
            await asyncio.sleep(.1)
        stage.present_revision = None
        await asyncio.sleep(.5)
        b = time.monotonic(); await w.effects.drain(b + 2.0); print("\ndrain idle", round(time.monotonic() - b, 3))
