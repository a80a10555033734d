"""The web chat in a real Chromium, on a page of another site with a strict content security policy."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from chassis.web import Receive, Scope, Send, respond, serve
from tests.integration.webchat_kit import Gateway, answered, gateway, opened, taken, until

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "webchat.png"
SECONDS = 15.0

pytestmark = pytest.mark.timeout(120)


class Site:
    """A shop's page: one script tag, and the policy that the documentation asks for."""

    def __init__(self) -> None:
        self.gateway = ""
        self.port = 0
        self.attributes = ""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/":
            await respond(send, 404, b"", "text/plain")
            return
        policy = (
            f"default-src 'none'; script-src {self.gateway}; "
            f"connect-src {self.gateway} {self.gateway.replace('http', 'ws')}; require-trusted-types-for 'script'"
        )
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Lantern &amp; Oak</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            "<h1>Lantern &amp; Oak</h1><p>Lamps and desks.</p>"
            f'<script src="{self.gateway}/v1/widget/shop.js" async {self.attributes}></script></html>'
        )
        await respond(send, 200, page.encode(), "text/html; charset=utf-8")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made, stopping, bound = Site(), asyncio.Event(), asyncio.Event()

    def on_bound(port: int) -> None:
        made.port = port
        bound.set()

    serving = asyncio.create_task(
        serve(made, "127.0.0.1", 0, stopping, on_bound=on_bound, drain_seconds=1.0)
    )
    await asyncio.wait_for(bound.wait(), 10)
    yield made
    stopping.set()
    await serving


def channels(site: Site, more: str = "") -> str:
    return (
        f"channels: {{shop: {{channel: webchat, origins: ['{site.url.rstrip('/')}'], "
        "title: {en: Lantern & Oak}, greeting: {en: 'Hello! Ask us about lamps.'}" + more + "}}"
    )


@pytest.fixture
async def door(database: str, tmp_path: Path, site: Site) -> AsyncIterator[Gateway]:
    async with gateway(database, tmp_path, channels(site)) as made:
        site.gateway = made.url
        yield made


@contextlib.asynccontextmanager
async def visiting(
    browser: Browser, site: Site, *, locale: str = "en-GB", is_socket_blocked: bool = False
) -> AsyncIterator[tuple[BrowserContext, Page]]:
    """A page of the site in a browser of its own; whatever the browser complains about fails the test."""
    context = await browser.new_context(locale=locale, viewport={"width": 900, "height": 700})
    complaints: list[str] = []
    page = await context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: (
            complaints.append(said.text)
            if re.search(r"Content.Security|Trusted|TypeError|violat", said.text)
            else None
        ),
    )
    if is_socket_blocked:
        await page.add_init_script(
            "window.WebSocket = function () { throw new Error('blocked'); };"
        )
    await page.goto(site.url)
    try:
        yield context, page
    finally:
        await context.close()
    assert complaints == []


async def say(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Your message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def open_chat(page: Page) -> None:
    await page.get_by_role("button", name="Open chat").click()
    await expect(page.get_by_role("dialog")).to_be_visible()


async def session_of(door: Gateway) -> tuple[str, str]:
    """The session and the widget's id of the first message."""

    async def has_come() -> bool:
        return bool(await door.pool.fetchval("SELECT count(*) FROM webchat_message"))

    await until("the message has come", has_come)
    row = await door.pool.fetchrow("SELECT session_id, name FROM webchat_message ORDER BY at, n")
    assert row is not None
    return row["session_id"], row["name"]


async def listeners(door: Gateway) -> None:
    """Wait until the widget listens, by socket or by poll."""
    await until("the widget listens", lambda: door.chat._deps.hub.count > 0)


async def test_a_visitor_is_greeted_writes_and_is_answered_and_a_reload_keeps_it_all(
    door: Gateway, site: Site, browser: Browser
) -> None:
    async with visiting(browser, site) as (_, page):
        await open_chat(page)
        log = page.get_by_role("log")
        await expect(log).to_contain_text("Hello! Ask us about lamps.")
        await say(page, "Where is my lamp? <b>1001</b> & more")
        await expect(log).to_contain_text("Where is my lamp? <b>1001</b> & more")
        await expect(log).to_contain_text("Sent")
        session, name = await session_of(door)
        await listeners(door)
        await door.told(opened(session, name, "conv-1"), taken("conv-1"))
        await expect(log).to_contain_text("Seen")
        async with door.pool.acquire() as connection:
            assert await door.stage.store.agent_types(connection, "conv-1")
        await expect(page.get_by_text("Support is typing…")).to_be_visible()
        await door.told(answered("conv-1", "It left our house today: https://post.example/1001"))
        await expect(log).to_contain_text("It left our house today")
        await expect(page.get_by_text("Support is typing…")).to_have_count(0)
        link = log.get_by_role("link", name="https://post.example/1001")
        await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
        await until(
            "the answer is marked as read",
            lambda: door.pool.fetchval(
                "SELECT bool_and(read_at IS NOT NULL) FROM webchat_message WHERE direction = 'out'"
            ),
        )
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=PICTURE)
        await page.reload()
        await open_chat(page)
        await expect(log).to_contain_text("Where is my lamp? <b>1001</b> & more")
        await expect(log).to_contain_text("It left our house today")
        await expect(log.locator(".m")).to_have_count(3)
    assert len(await door.spooled()) == 1


async def test_where_no_socket_is_to_be_had_polling_carries_the_chat(
    door: Gateway, site: Site, browser: Browser
) -> None:
    async with visiting(browser, site, is_socket_blocked=True) as (_, page):
        await open_chat(page)
        await say(page, "Hello?")
        await expect(page.get_by_role("log")).to_contain_text("Sent")
        session, name = await session_of(door)
        await listeners(door)
        await door.told(opened(session, name, "conv-1"), answered("conv-1", "Good day!"))
        await expect(page.get_by_role("log")).to_contain_text("Good day!")


async def test_an_answer_to_a_closed_chat_is_counted_on_its_button(
    door: Gateway, site: Site, browser: Browser
) -> None:
    async with visiting(browser, site) as (_, page):
        await open_chat(page)
        await say(page, "Hello?")
        session, name = await session_of(door)
        await page.get_by_role("button", name="Close chat").first.click()
        await door.told(opened(session, name, "conv-1"), answered("conv-1", "Good day!"))
        await expect(page.get_by_role("button", name="Open chat. New messages: 1")).to_be_visible()


async def test_the_keyboard_is_enough(door: Gateway, site: Site, browser: Browser) -> None:
    async with visiting(browser, site) as (_, page):
        await page.get_by_role("button", name="Open chat").wait_for()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Open chat")).to_be_focused()
        await page.keyboard.press("Enter")
        box = page.get_by_role("textbox", name="Your message")
        await expect(box).to_be_focused()
        await page.keyboard.type("One line")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("and another")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("log")).to_contain_text("One line\nand another")
        await expect(box).to_be_focused()
        await expect(box).to_have_value("")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await expect(page.get_by_role("button", name="Open chat")).to_be_focused()


async def test_a_closed_shop_asks_for_an_address_and_takes_the_message_as_a_form(
    door: Gateway, site: Site, browser: Browser
) -> None:
    door.policies.write(channels(site, ", offline: true"))
    async with visiting(browser, site) as (_, page):
        await open_chat(page)
        await expect(page.get_by_role("log")).to_contain_text("Nobody is here right now.")
        await page.get_by_label("Message", exact=True).fill("Call me, please")
        await page.get_by_role("button", name="Send").click()
        address = page.get_by_label("Mail address")
        await expect(address).to_be_focused()
        await expect(address).to_have_attribute("aria-invalid", "true")
        await expect(page.get_by_text("Please enter a mail address")).to_be_visible()
        await address.fill("ada@example.com")
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_role("log")).to_contain_text("Thank you. We will answer by mail.")
    ((channel, _, message),) = await door.messages()
    assert (channel, message.sender.address) == ("form", "ada@example.com")
    assert message.text_new == "Call me, please"


async def test_on_a_phone_the_chat_has_the_whole_screen_and_gives_it_back(
    door: Gateway, site: Site, browser: Browser
) -> None:
    async with visiting(browser, site) as (_, page):
        await page.set_viewport_size({"width": 360, "height": 640})
        await open_chat(page)
        await say(page, "From my phone")
        await expect(page.get_by_role("log")).to_contain_text("Sent")
        panel = await page.get_by_role("dialog").bounding_box()
        assert panel == {"x": 0, "y": 0, "width": 360, "height": 640}
        await page.get_by_role("button", name="Close chat").click()
        await expect(page.get_by_role("button", name="Open chat")).to_be_focused()


async def test_what_is_written_while_the_gateway_is_away_is_sent_once_it_is_back(
    database: str, tmp_path: Path, site: Site, browser: Browser
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with gateway(database, tmp_path, channels(site)) as door:
            site.gateway, port = door.url, door.port
            _, page = await stack.enter_async_context(visiting(browser, site))
            await open_chat(page)
            await say(page, "First")
            await expect(page.get_by_role("log")).to_contain_text("Sent")
        await say(page, "Second")
        await expect(page.get_by_role("log")).to_contain_text("Sending…")
        await expect(page.get_by_text("No connection.")).to_be_visible(timeout=30_000)
        again = gateway(database, tmp_path, channels(site), port=port, is_fresh=False)
        door = await stack.enter_async_context(again)

        async def are_both_there() -> bool:
            return [one.text for _, _, one in await door.messages()] == ["First", "Second"]

        await until("both are there", are_both_there, 60)
        await expect(page.get_by_role("log").locator(".mine")).to_have_count(2)
        await expect(page.get_by_role("log")).not_to_contain_text("Sending…")
        await page.close()


async def test_who_cannot_reach_the_gateway_at_all_leaves_a_form_that_is_sent_later(
    door: Gateway, site: Site, browser: Browser
) -> None:
    async with visiting(browser, site, locale="tr-TR") as (context, page):
        await page.get_by_role("button", name="Sohbeti aç").wait_for()
        await context.set_offline(True)
        await page.get_by_role("button", name="Sohbeti aç").click()
        await expect(page.get_by_role("log")).to_contain_text("Şu anda bize ulaşılamıyor.")
        await page.get_by_label("E-posta adresi").fill("ada@example.com")
        await page.get_by_label("Mesaj", exact=True).fill("Lambam nerede?")
        await page.get_by_role("button", name="Gönder").click()
        await expect(page.get_by_role("log")).to_contain_text("Saklandı.")
        await context.set_offline(False)
        await expect(page.get_by_role("log")).to_contain_text("Teşekkürler.", timeout=30_000)
    ((channel, _, message),) = await door.messages()
    assert (channel, message.language, message.text_new) == ("form", "tr", "Lambam nerede?")


@pytest.mark.parametrize(
    ("locale", "button", "greeting"),
    [
        ("tr-TR", "Sohbeti aç", "Merhaba! Nasıl yardımcı olabiliriz?"),
        ("ru-RU", "Открыть чат", "Здравствуйте! Чем можем помочь?"),
        ("fr-FR", "Open chat", "Hello! How can we help?"),
    ],
)
async def test_the_widget_speaks_the_browsers_language(
    door: Gateway, site: Site, browser: Browser, locale: str, button: str, greeting: str
) -> None:
    door.policies.write(channels(site).replace("greeting: {en: 'Hello! Ask us about lamps.'}", ""))
    async with visiting(browser, site, locale=locale) as (_, page):
        await page.get_by_role("button", name=button).click()
        await expect(page.get_by_role("log")).to_contain_text(greeting)
