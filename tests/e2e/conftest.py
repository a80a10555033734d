"""A real Chromium for the tests that need one. Where none is installed they are skipped, and say what would help."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""What a Chromium is called on the machines that have one."""

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def executable() -> str:
    """Where Chromium is; `SIGNALBOX_CHROMIUM` names another."""
    named = os.environ.get("SIGNALBOX_CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(
            "no Chromium is installed: `make browser` installs Debian's, or name one in SIGNALBOX_CHROMIUM"
        )
    return found


@pytest.fixture
async def browser(executable: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield made
        await made.close()
