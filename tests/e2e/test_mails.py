"""Mails in a real Chromium: readable at a desk and on a telephone, in light and in dark, in every language."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from cli.template_page import MORE, sample
from cli.template_page import page as preview_page
from cli.templates import read
from services.notifier.core.facts import ArticleFacts, ChoiceFacts, DigestItem, Facts, SurveyFacts
from services.notifier.core.render import OCCASIONS, Templates, compile_templates

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
IS_WRITING = os.environ.get("SIGNALBOX_GOLDEN") == "write"
WIDTHS = {"phone": 390, "desk": 1024}
CONTRAST_MIN = 4.5
"""WCAG 2.2, 1.4.3 Contrast (Minimum), level AA: for text below 24 px."""

MEASURE = """() => {
  const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const [a, b] = [light(rgba(style.color)), light(ground(node))].sort((x, y) => y - x);
    found.push({
      text: walker.currentNode.data.trim().slice(0, 40), ratio: (a + 0.05) / (b + 0.05), size: parseFloat(style.fontSize),
    });
  }
  return {found, scroll: document.documentElement.scrollWidth, width: window.innerWidth,
    ground: light(rgba(getComputedStyle(document.body).backgroundColor))};
}"""

pytestmark = pytest.mark.timeout(170)


@pytest.fixture(scope="module")
def policy() -> tuple[Templates, Any]:
    file, sources = read(ROOT / "policy")
    return compile_templates(sources, tuple(file.languages)), file


async def opened(browser: Browser, width: int, scheme: Any) -> Page:
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=True
    )
    return await context.new_page()


def readable(measured: Any, where: str, scheme: str) -> None:
    assert measured["scroll"] <= measured["width"], f"{where}: scrolls sideways"
    assert measured["found"], f"{where}: nothing to read"
    for text in measured["found"]:
        assert text["ratio"] >= CONTRAST_MIN, f"{where}: {text}"
        assert text["size"] >= 13, f"{where}: {text}"
    assert (measured["ground"] < 0.2) == (scheme == "dark"), f"{where}: is not {scheme}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", list(WIDTHS))
async def test_every_mail_is_readable_without_scrolling_sideways(
    browser: Browser, policy: tuple[Templates, Any], kind: str, scheme: str
) -> None:
    templates, file = policy
    page = await opened(browser, WIDTHS[kind], scheme)
    for occasion in OCCASIONS:
        for language in ("en", "tr", "ru"):
            words = templates.render(occasion, sample(language, file, occasion))
            await page.set_content(words.html)
            where = f"{language} {occasion} {kind} {scheme}"
            readable(await page.evaluate(MEASURE), where, scheme)


def endless(language: str, file: Any) -> Facts:
    """Facts of words without a blank in them, as long as they may be."""
    word = "Donaudampfschifffahrtsgesellschaft" * 5
    link = f"https://help.example/{'a' * 300}"
    facts = sample(language, file)
    return replace(
        facts,
        brand=word,
        reference=word,
        signature=word,
        question=word,
        note=word,
        answer=f"{word}\n\n{link}",
        articles=(ArticleFacts(word, link, word),),
        survey=SurveyFacts("csat", word, (ChoiceFacts(word, link), ChoiceFacts("ok", link))),
        digest=(DigestItem(word, word),),
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", list(WIDTHS))
async def test_endless_words_do_not_break_a_mail(
    browser: Browser, policy: tuple[Templates, Any], kind: str, scheme: str
) -> None:
    templates, file = policy
    page = await opened(browser, WIDTHS[kind], scheme)
    for occasion in (
        "received",
        "need_info",
        "answered",
        "security",
        "next_issue",
        "survey",
        "digest",
    ):
        words = templates.render(occasion, endless("en", file))
        await page.set_content(words.html)
        readable(await page.evaluate(MEASURE), f"{occasion} {kind} {scheme}", scheme)


@pytest.mark.parametrize(
    ("occasion", "language", "kind", "scheme"),
    [
        ("received", "en", "desk", "light"),
        ("received", "en", "phone", "dark"),
        ("after_hours", "tr", "phone", "light"),
        ("survey", "ru", "desk", "dark"),
    ],
)
async def test_mails_look_as_in_the_documentation(
    browser: Browser,
    policy: tuple[Templates, Any],
    occasion: str,
    language: str,
    kind: str,
    scheme: str,
) -> None:
    """Fonts differ between machines, so pictures are not compared: `SIGNALBOX_GOLDEN=write` renews those of the documentation."""
    templates, file = policy
    width = {"phone": 390, "desk": 760}[kind]
    page = await opened(browser, width, scheme)
    await page.set_content(templates.render(occasion, sample(language, file, occasion)).html)
    picture = PICTURES / f"mail-{occasion}-{language}-{kind}-{scheme}.png"
    taken = await page.screenshot(full_page=True)
    if IS_WRITING:
        await asyncio.to_thread(picture.write_bytes, taken)
    assert taken.startswith(b"\x89PNG")
    assert picture.stat().st_size < 150_000


async def test_a_button_can_be_pressed_with_a_thumb(
    browser: Browser, policy: tuple[Templates, Any]
) -> None:
    """WCAG 2.2, 2.5.8: a target is at least 24 px high; ours are 44 px, and as wide as the mail."""
    templates, file = policy
    page = await opened(browser, WIDTHS["phone"], "light")
    await page.set_content(templates.render("survey", sample("en", file, "survey")).html)
    buttons = await page.locator(".button a").all()
    assert len(buttons) == 5
    for one in buttons:
        box = await one.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["width"] >= 340
        assert await one.get_attribute("href")


async def test_the_preview_shows_every_notice_and_its_frames_may_do_nothing(
    browser: Browser, policy: tuple[Templates, Any], tmp_path: Path
) -> None:
    templates, file = policy
    path = tmp_path / "preview.html"
    path.write_text(preview_page(templates, file, ("en", "tr", "ru")), encoding="utf-8")
    page = await opened(browser, 1280, "light")
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text))
    await page.goto(path.as_uri())
    assert await page.locator("section").count() == len(OCCASIONS) + len(MORE)
    assert len(page.frames) == 1 + 4, "only what is opened is drawn"
    shown = page.frame_locator("#received iframe.phone >> nth=1").locator("body")
    assert "Thank you for writing to us." in await shown.inner_text()
    ground = await shown.evaluate("node => getComputedStyle(node).backgroundColor")
    assert ground == "rgb(20, 24, 28)"
    await page.locator("#survey summary").nth(2).press("Enter")  # a key hits where it is aimed
    await expect(page.locator("#survey details[open]")).to_have_count(1)
    await expect(page.locator("#survey iframe")).to_have_count(4)
    russian = page.frame_locator("#survey iframe.desk >> nth=0").locator("body")
    assert "Здравствуйте, Анна Сергеевна!" in await russian.inner_text()
    assert len(page.frames) == 1 + 4 + 4
    assert await page.locator('iframe[sandbox=""]').count() == 8
    assert [url for url in asked if not url.startswith(("file:", "about:"))] == []
    assert complaints == []
