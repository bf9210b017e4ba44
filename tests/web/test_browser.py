"""A person at the page: a real browser gives a file of each kind, asks, and reads the answer."""

import re
import shutil
from pathlib import Path

import pytest

from onellm.modalities import MODALITIES

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARTEFACTS = Path(__file__).resolve().parents[2] / "test-artefacts"
ANSWER_MS = 90_000


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian and Ubuntu: apt-get install chromium")
    ARTEFACTS.mkdir(exist_ok=True)
    software_3d = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *software_3d])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, app_url):
    """Open the page at a size; at the end nothing may have left this machine or failed in the page."""
    contexts, strangers, errors = [], [], []

    def open_(width=1280, height=800, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(ANSWER_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: strangers.append(r.url) if not _is_own(r.url, app_url) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(app_url)
        page.wait_for_selector(".status.ready", timeout=ANSWER_MS)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not strangers and not errors


def _is_own(url, app_url):
    return url.startswith((app_url, "data:", "blob:"))


def give(page, kind, path):
    page.locator(f"#card-{kind} .drop input[type=file]").set_input_files(path)
    page.wait_for_selector(f"#card-{kind} .caption", timeout=ANSWER_MS)


def ask(page, question):
    before = page.locator("#conversation .bot.message").count()
    page.locator("#message textarea").fill(question)
    page.locator("#send").click()
    page.wait_for_selector("#stop", state="visible")
    page.wait_for_selector("#send", state="visible", timeout=ANSWER_MS)
    assert page.locator("#conversation .bot.message").count() == before + 1
    return page.locator("#conversation .bot.message").last.inner_text().strip()


def test_a_file_of_each_kind(open_page, example_files):
    page = open_page()
    page.screenshot(path=ARTEFACTS / "empty.png")
    for kind in MODALITIES:
        give(page, kind, example_files[kind])
        page.wait_for_timeout(500)  # a plot draws itself
        page.locator(f"#card-{kind}").screenshot(path=ARTEFACTS / f"preview-{kind}.png")
        answer = ask(page, "What is this?")
        assert answer and not page.locator("#conversation .note.error").count()
        assert page.locator(".card .file-preview").count() == 0  # the form is empty again
        assert example_files[kind].name in page.locator("#conversation .user.message").last.inner_text()
        page.screenshot(path=ARTEFACTS / f"answer-{kind}.png")
        page.locator("#clear").click()
        page.wait_for_selector("#welcome", state="visible")


def test_later_questions(open_page, example_files):
    page = open_page()
    give(page, "image", example_files["image"])
    assert ask(page, "What is this?")
    assert ask(page, "What was in the picture?")
    give(page, "imu", example_files["imu"])
    assert ask(page, "What is the person doing?")
    assert page.locator("#conversation .user.message").count() == 3


def test_an_example_runs_on_a_click(open_page):
    page = open_page(360, 740, "dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.screenshot(path=ARTEFACTS / "phone.png", full_page=True)
    page.locator(".example").first.click()
    page.wait_for_selector("#send", state="hidden")
    page.wait_for_selector("#send", state="visible", timeout=ANSWER_MS)
    assert page.locator("#conversation .bot.message").inner_text().strip()
    page.screenshot(path=ARTEFACTS / "phone-answer.png")


def test_stop(open_page):
    page = open_page()
    page.locator("#message textarea").fill("Tell me a long story about a journey around the whole world.")
    page.locator("#send").click()
    page.wait_for_function("document.querySelector('#conversation .bot')?.innerText.split(' ').length > 2")
    page.locator("#stop").dispatch_event("click")  # the page moves while words stream in; a mouse would wait or miss
    page.wait_for_selector("#send", state="visible", timeout=15_000)
    answer = page.locator("#conversation .bot.message")
    page.wait_for_selector('#conversation .bot.message :text("Stopped.")', timeout=15_000)
    said = answer.inner_text()
    page.wait_for_timeout(1_000)
    assert answer.inner_text() == said
    assert ask(page, "Hello!")


def test_errors_are_words_and_nothing_is_lost(open_page, tmp_path):
    page = open_page()
    broken = tmp_path / "<b>broken.png"
    broken.write_text("no picture")
    page.locator("#card-image .drop input[type=file]").set_input_files(broken)
    page.wait_for_selector("#card-image .note.error")
    assert re.search(r"expected a picture", page.locator("#card-image .note.error").inner_text())
    page.locator("#message textarea").fill("What is <this>?")
    page.locator("#send").click()
    page.get_by_text("expected a picture").nth(1).wait_for()
    page.screenshot(path=ARTEFACTS / "error.png")
    assert page.locator("#message textarea").input_value() == "What is <this>?"
    assert page.locator("#card-image .file-preview").count() == 1
    page.locator("#card-image .drop [aria-label=Clear]").last.click()
    page.wait_for_selector("#card-image .note.error", state="detached")
    assert ask(page, "What is <this>?")
    assert "What is <this>?" in page.locator("#conversation .user.message").inner_text()
