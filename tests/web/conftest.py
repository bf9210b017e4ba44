"""A person at the page: a real browser, and what one does with it."""

import shutil
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARTEFACTS = Path(__file__).resolve().parents[2] / "test-artefacts"
ANSWER_MS = 150_000  # of waiting; a busy machine takes ten times as long as a quiet one
SCREENS = {"wide": (1280, 800, "light"), "phone": (360, 740, "dark")}


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian and Ubuntu: apt-get install chromium")
    ARTEFACTS.mkdir(exist_ok=True)
    software_3d = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    recorders = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *software_3d, *recorders])
        yield browser
        browser.close()


@pytest.fixture(params=SCREENS)
def screen(request):
    """Width, height and light of a page on which everything has to work."""
    return SCREENS[request.param]


@pytest.fixture
def open_page(browser, app_url):
    """Open the page as one person does; at the end nothing may have left this machine or failed in the page."""
    contexts, strangers, errors = [], [], []

    def open_(width=1280, height=800, scheme="light", locale="en-US"):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            locale=locale,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(ANSWER_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: strangers.append(r.url) if not _is_own(r.url, app_url) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(app_url)
        page.wait_for_selector(".status.ready", timeout=ANSWER_MS)
        page.wait_for_selector("body[data-opened]", timeout=ANSWER_MS)
        return Person(page, f"{width}-{scheme}")

    yield open_
    for context in contexts:
        context.close()
    assert not strangers and not errors


def _is_own(url, app_url):
    return url.startswith((app_url, "data:", "blob:"))


class Person:
    """What a person does at the page."""

    def __init__(self, page, screen):
        self.page, self.screen = page, screen

    def see(self, name):
        """Keep a picture of the page for people to look at."""
        self.page.wait_for_timeout(250)  # transitions end
        self.page.screenshot(path=ARTEFACTS / f"{name}-{self.screen}.png")
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to the side

    @property
    def chips(self):
        return self.page.locator("#attached .chip")

    @property
    def answers(self):
        return self.page.locator("#conversation .bot.message")

    @property
    def questions(self):
        return self.page.locator("#conversation .user.message")

    def give(self, modality, path):
        """Choose a file in a kind's widget."""
        before = self.chips.count()
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(f"#add-{modality}").click()
        chooser.value.set_files(path)
        self.chips.nth(before).wait_for()

    def drop(self, path, target="#message textarea", name=None, type_=""):
        """Drop a file on a part of the page."""
        self._hand_over("drop", path, target, name, type_)

    def paste(self, path, name=None, type_=""):
        """Paste a file."""
        self._hand_over("paste", path, "#message textarea", name, type_)

    def _hand_over(self, how, path, target, name, type_):
        script = """([how, target, name, type, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type}));
            const event = how === "drop"
                ? new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: data})
                : new ClipboardEvent("paste", {bubbles: true, cancelable: true, clipboardData: data});
            document.querySelector(target).dispatchEvent(event);
        }"""
        self.page.evaluate(script, [how, target, name or path.name, type_, list(path.read_bytes())])

    def ask(self, question=None):
        """Ask, wait for the whole answer, and read it."""
        before = self.answers.count()
        if question is not None:
            self.page.locator("#message textarea").fill(question)
        self.page.locator("#send").click()
        self.wait()
        assert self.answers.count() == before + 1
        return self.answer()

    def wait(self):
        """Wait until an answer that is on its way has come."""
        self.page.wait_for_selector("#send", state="hidden")
        self.page.wait_for_selector("#send", state="visible")

    def begin_anew(self):
        """Start a new conversation."""
        self.page.locator("#new").click()
        self.page.wait_for_selector("#welcome", state="visible")

    def answer(self):
        """Read the words of the last answer."""
        words = self.answers.last.locator(".message-content")
        return words.inner_text().strip() if words.count() else ""

    def act(self, name, last=True, **data):
        """Click a button inside HTML."""
        values = "".join(f'[data-{key}="{value}"]' for key, value in data.items())
        found = self.page.locator(f'[data-act="{name}"]{values}')
        (found.last if last else found.first).click()

    def open(self, drawer):
        """Open a drawer at the right."""
        button = self.page.locator(f"#{drawer} > button").first
        if button.get_attribute("aria-expanded") != "true" and "open" not in (button.get_attribute("class") or ""):
            button.click()
