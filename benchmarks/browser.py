"""A browser that looks at Prefect's UI as an operator does: Chromium, for which the world is the local server."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, Response, expect, sync_playwright

from benchmarks.programs import QUIET_SECONDS, Up

CHROMIUM = shutil.which("chromium")
HOW_TO_INSTALL = "install Debian's package `chromium`"
PATIENCE = QUIET_SECONDS * 1000  # milliseconds; the machine may be busy, and the scheduler looks once a minute
OUTSIDE = {"sr-client-cfg.amplitude.com"}  # Prefect's UI asks it at each page, whatever is set

expect.set_options(timeout=PATIENCE)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium, which must be installed."""
    flags = ["--disable-gpu", "--disable-quic"]
    with sync_playwright() as play, play.chromium.launch(executable_path=CHROMIUM, args=flags) as browser:
        yield browser


def log_in(browser: Browser, up: Up) -> Any:
    """What a browser keeps that has logged in by a link."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(up.access.link())
        expect(page).to_have_url(re.compile("/v2/dashboard"))
        return context.storage_state()


@contextmanager
def window(browser: Browser, up: Up, logged_in: Any) -> Iterator[Page]:
    """A new window, which has logged in, and which must not have reached for anything but the local server."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800},
        locale="en-US",
        timezone_id="America/New_York",
        storage_state=logged_in,
    )
    host, outside = urlsplit(up.ui).netloc, set[str]()
    with context:
        context.set_default_timeout(PATIENCE)
        context.route(lambda url: urlsplit(url).netloc not in ("", host), lambda route: route.abort())
        page = context.new_page()
        page.on("requestfailed", lambda request: outside.add(urlsplit(request.url).netloc))
        yield page
    assert outside - {host} <= OUTSIDE


def main(page: Page) -> Locator:
    """What a page of the UI shows beside its menu."""
    return page.get_by_role("main")


def answer(page: Page, button: Locator, endpoint: str) -> Response:
    """Of the server, to the form that the button sends."""
    with page.expect_response(re.compile(f"/{endpoint}$")) as response:
        button.click()
    return response.value


def approval_form(page: Page) -> Locator:
    """The form of Resume, from the menu of the page of a run that waits for a yes."""
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Resume").click()
    return page.get_by_role("dialog")


def fill_approval(page: Page, form: Locator, reply: str, reason: str) -> None:
    """Choose yes or no in that form, and give a reason."""
    form.get_by_role("button", name="Select Answer").click()
    page.get_by_role("option", name=reply).click()
    form.get_by_label("Reason").fill(reason)


def overflowing(area: Locator) -> list[str]:
    """Elements whose content is wider than they are, by their first words."""
    return area.evaluate(
        """area => [area, ...area.querySelectorAll('*')]
            .filter(each => each.clientWidth > 1 && each.scrollWidth > each.clientWidth + 1)
            .map(each => each.tagName + ' ' + each.innerText.slice(0, 60))"""
    )


def help_texts(schema: dict[str, Any]) -> dict[str, str | None]:
    """The description of every field that a form has, those of its groups among them."""
    groups = schema["definitions"]
    return {
        name: groups[facts["$ref"].rpartition("/")[2]]["description"] if "$ref" in facts else facts.get("description")
        for group in (schema, *groups.values())
        for name, facts in group.get("properties", {}).items()
    }


def open_newest(page: Page, up: Up, name: str) -> Locator:
    """The newest version of an artifact of the store, by way of its history; gives its own part of the page."""
    page.goto(f"{up.ui}/artifacts/key/{up.artifact_key(name)}")
    main(page).locator("a[href*='/artifacts/artifact/']").first.click()
    shown = main(page).get_by_role("tabpanel", name="Artifact")
    expect(shown).to_be_visible()
    return shown
