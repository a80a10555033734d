"""The pages behind the links of our notices in a real Chromium: with scripts and without, light and dark, by mouse and by keys."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from chassis.web import serve
from schemas.feedback import ContactOptedIn, ContactOptedOut, FeedbackGiven
from tests.e2e.test_webchat import SECONDS
from tests.integration.feedback_kit import Door, door, survey_path, wish_path

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"

pytestmark = pytest.mark.timeout(120)


class Site:
    """The gateway's pages on a port of this machine."""

    def __init__(self, inside: Door, port: int) -> None:
        self.inside = inside
        self.url = f"http://127.0.0.1:{port}"


@pytest.fixture
async def site(database: str) -> AsyncIterator[Site]:
    stopping, bound, ports = asyncio.Event(), asyncio.Event(), list[int]()

    def on_bound(port: int) -> None:
        ports.append(port)
        bound.set()

    async with door(database) as inside:
        serving = asyncio.create_task(
            serve(inside.app, "127.0.0.1", 0, stopping, on_bound=on_bound, drain_seconds=1.0)
        )
        await asyncio.wait_for(bound.wait(), 10)
        yield Site(inside, ports[0])
        stopping.set()
        await serving


@contextlib.asynccontextmanager
async def visiting(browser: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    """A page in a browser of its own; whatever it complains about, or fetches from elsewhere, fails the test."""
    context = await browser.new_context(viewport={"width": 420, "height": 640}, **options)
    complaints: list[str] = []
    page = await context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text))
    page.on(
        "request",
        lambda asked: (
            complaints.append(asked.url)
            if not asked.url.startswith(url.rpartition("/v1/")[0])
            else None
        ),
    )
    await page.goto(url)
    try:
        yield page
    finally:
        await context.close()
    assert [one for one in complaints if "favicon" not in one] == []


@pytest.mark.parametrize("has_scripts", [True, False])
async def test_a_customer_answers_with_one_press_and_may_change_their_mind(
    browser: Browser, site: Site, has_scripts: bool
) -> None:
    url = site.url + survey_path(2)
    async with visiting(browser, url, java_script_enabled=has_scripts) as page:
        await expect(page.get_by_role("radio", name="2", exact=True)).to_be_checked()
        # Looking at it, scripts or not, has answered nothing.
        assert await site.inside.events() == []
        await page.get_by_label("What should we know?").fill("Three mails for one lamp.")
        await page.get_by_role("button", name="Send my answer").click()
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        await page.get_by_role("radio", name="4", exact=True).check()
        await page.get_by_label("may see this answer").check()
        await page.get_by_role("button", name="Send my answer").click()
        await expect(page.get_by_text("You answered:")).to_be_visible()
    events = [one for one in await site.inside.events() if isinstance(one, FeedbackGiven)]
    assert [(one.score, one.comment, one.may_share, one.revision) for one in events] == [
        (2, "Three mails for one lamp.", False, 1),
        (4, "Three mails for one lamp.", True, 2),
    ]


@pytest.mark.parametrize("has_scripts", [True, False])
async def test_a_customer_leaves_a_kind_of_notices_and_comes_back(
    browser: Browser, site: Site, has_scripts: bool
) -> None:
    url = site.url + wish_path(language="tr")
    async with visiting(browser, url, java_script_enabled=has_scripts) as page:
        await page.get_by_role("button", name="Evet, durdurun").click()
        await expect(page.get_by_role("heading", name="artık almayacaksınız")).to_be_visible()
        await page.get_by_role("button", name="Yanlışlıkla oldu").click()
        await expect(page.get_by_role("heading", name="yeniden alacaksınız")).to_be_visible()
    kinds = [type(one) for one in await site.inside.events()]
    assert kinds == [ContactOptedOut, ContactOptedIn]


async def test_keys_alone_answer_it(browser: Browser, site: Site) -> None:
    async with visiting(browser, site.url + survey_path(None, "nps", "ru")) as page:
        await page.keyboard.press("Tab")
        await page.keyboard.press("Space")
        for _ in range(9):
            await page.keyboard.press("ArrowRight")
        await expect(page.get_by_role("radio", name="9", exact=True)).to_be_checked()
        await page.keyboard.press("Tab")
        await page.keyboard.type("Спасибо!")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Спасибо")).to_be_visible()
    (event,) = await site.inside.events()
    assert isinstance(event, FeedbackGiven)
    assert (event.kind, event.score, event.comment, event.language) == ("nps", 9, "Спасибо!", "ru")


async def contrast(page: Page, selector: str) -> float:
    """The contrast of an element's text with what lies behind it (WCAG 2.2, relative luminance)."""
    ratio: float = await page.evaluate(
        """selector => {
          const luminance = text => {
            const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(one => one / 255)
              .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const element = document.querySelector(selector);
          let behind = element;
          while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
          const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(luminance);
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }""",
        selector,
    )
    return ratio


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read_in_light_and_in_dark_on_a_telephone(
    browser: Browser, site: Site, scheme: str
) -> None:
    site.inside.feedback.brand = "Lantern & Oak"
    async with visiting(browser, site.url + survey_path(2), color_scheme=scheme) as page:
        for selector in ("legend", "button", ".ends", ".small", ".scores label:has(:checked)"):
            assert await contrast(page, selector) >= 4.5, f"{selector} in {scheme}"
        widest = await page.evaluate("document.documentElement.scrollWidth")
        assert widest <= 420
        box = await page.locator(".scores label").first.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, target size.
        await page.screenshot(path=PICTURES / f"survey_{scheme}.png")
