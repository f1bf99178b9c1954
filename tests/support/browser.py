"""The system's Chromium, as a person uses it: whatever its console says that is wrong fails the test."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_AXE = Axe()
expect.set_options(timeout=30_000)  # the machine brings up a cluster meanwhile


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """A loopback of this thread's own, and of the processes that it starts, where that is allowed: a browser gives up requests whenever
    the machine's interfaces change, and those of the cluster that other tests run change all the time."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC) if os.path.exists("/proc/thread-self/ns/net") else -1
    try:
        if before < 0 or libc.unshare(_NEW_NETWORK) != 0:
            yield
            return
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            assert libc.setns(before, _NEW_NETWORK) == 0
    finally:
        if before >= 0:
            os.close(before)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; skips the test where there is none, unless nothing may be skipped."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        advice = "no Chromium: scripts/system-packages.sh cluster installs it"
        if os.environ.get("REQUIRE_CLUSTER"):
            pytest.fail(advice)
        pytest.skip(advice)
    with own_network(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def page_of(browser: Browser, url: str, scheme: str = "light", expected: tuple[str, ...] = ()) -> Iterator[Page]:
    """A page that is to say nothing in its console but what is expected.

    Args:
        browser: the browser.
        url: of the server.
        scheme: light or dark.
        expected: parts of messages that may come.
    """
    context = browser.new_context(base_url=url, color_scheme=scheme, viewport={"width": 1200, "height": 900})  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    page = context.new_page()
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(f"{message.text} ({message.location.get('url', '')})")

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page
        wrong = [one for one in said if not any(part in one for part in expected)]
        assert not wrong, wrong
    finally:
        context.close()


def stumbles(page: Page) -> list[str]:
    """What people with a keyboard or a screen reader stumble on, as axe finds it."""
    found = _AXE.run(page).response["violations"]
    return [f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]
