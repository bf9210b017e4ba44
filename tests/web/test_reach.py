"""Everyone can use the page: two languages, keys alone, screen readers, a phone, light and dark, a fast start."""

import pytest

from onellm.web.views.texts import LANGUAGES, say, texts

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious(open_page, example_files, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    person = open_page(width, 800, scheme)
    for drawer in ("record", "history", "model", "comparing", "settings"):
        person.open(drawer)
    person.page.wait_for_timeout(1_000)
    found = _serious(Axe(), person.page)
    for modality in ("normal", "audio"):
        person.drop(example_files[modality])
        person.chips.first.wait_for()
    person.page.wait_for_function("document.querySelectorAll('#attached .chip').length === 2")
    found += _serious(Axe(), person.page)
    person.ask("What is this?")
    person.page.locator("details.inside > summary").click()
    person.see("everything")
    found += _serious(Axe(), person.page)
    assert not found


def _serious(axe, page):
    """Run axe-core; name what is serious, and where."""
    violations = axe.run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}).response["violations"]
    return [
        (violation["id"], node["target"], node["failureSummary"][:200])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_keys_alone(open_page):
    person = open_page()
    keyboard = person.page.keyboard

    def reach(selector):
        for _ in range(120):
            if person.page.evaluate("(selector) => document.activeElement?.matches(selector)", selector):
                return
            keyboard.press("Tab")
        pytest.fail(f"Tab never came to {selector}")

    person.page.evaluate("document.activeElement.blur()")
    reach(".example")
    keyboard.press("Enter")
    person.wait()
    first = person.answer()
    reach('[data-act="sample"][data-kind="audio"]')
    keyboard.press("Enter")
    person.chips.wait_for()
    reach('#attached [data-act="remove"]')
    keyboard.press("Enter")
    person.chips.wait_for(state="detached")
    reach("#message textarea")
    keyboard.type("What is it?")
    keyboard.press("Enter")
    person.wait()
    assert first and person.answer() and person.questions.count() == 2


def test_chinese(open_page):
    person = open_page(locale="zh-CN")
    person.page.get_by_role("button", name=say("zh", "send"), exact=True).wait_for()
    assert person.page.evaluate("document.documentElement.lang") == "zh"
    person.page.locator(".example").first.click()
    person.wait()
    person.see("chinese")
    words = person.page.inner_text("body")
    for key in ("new", "tray", "history", "set", "record", "kind.fmri"):
        assert say("zh", key) in words and say("en", key) not in words
    person.act("language", language="en")
    person.page.get_by_role("button", name="Ask", exact=True).wait_for()
    person.page.reload()
    person.page.get_by_role("button", name="Ask", exact=True).wait_for()  # the choice is remembered


def test_the_languages_say_the_same():
    first, *others = (texts(language) for language in LANGUAGES)
    for other in others:
        assert first.keys() == other.keys()
        for key, text in first.items():
            marks = {mark for mark in text.split("{")[1:]}
            assert {m.split("}")[0] for m in marks} == {m.split("}")[0] for m in other[key].split("{")[1:]}, key


def test_first_paint(open_page):
    person = open_page()
    script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    times = []
    for _ in range(3):
        person.page.reload()
        person.page.wait_for_selector("#send")
        times.append(person.page.wait_for_function(script).json_value() / 1000)
    print(f"first paint after {min(times):.2f} s")
    assert min(times) < 3


def test_light_is_remembered(open_page):
    person = open_page(scheme="light")
    person.page.get_by_role("button", name="Light or dark").click()
    person.page.reload()
    person.page.wait_for_selector("body.dark")


def test_look_inside(open_page, screen, example_files):
    person = open_page(*screen)
    person.give("image", example_files["image"])
    person.give("audio", example_files["audio"])
    person.ask("What do you see and hear?")
    person.page.locator("details.inside > summary").click()
    panel = person.page.locator("details.inside")
    assert "cat.jpg" in panel.inner_text() and example_files["audio"].name in panel.inner_text()
    panel.scroll_into_view_if_needed()
    person.see("inside")


def test_settings(open_page):
    person = open_page()
    person.open("settings")
    page = person.page
    page.wait_for_timeout(1500)  # the drawer's parts are made when it is opened
    page.get_by_label("Temperature").first.fill("1.5")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Longest answer").first.fill("24")
    person.see("settings")
    first = person.ask("Tell me a story.")
    person.begin_anew()
    assert person.ask("Tell me a story.") == first  # the same seed
    person.begin_anew()
    page.get_by_label("Seed").fill("8")
    assert person.ask("Tell me a story.") != first
    page.get_by_role("button", name="Reset", exact=True).click()
    page.wait_for_function("document.querySelector('#settings input[type=number]').value === '0'")


def test_another_quantisation_is_loaded(open_page):
    person = open_page(360, 740, "dark")
    person.open("model")
    page = person.page
    before = page.locator(".badge").inner_text()
    other = "none" if "int8" in before else "int8"
    loaded = page.locator("#models details[open]")
    loaded.locator(f'input[value="{other}"]').check()
    loaded.locator('[data-act="switch"]').click()
    page.wait_for_selector(".status.loading")
    person.see("loading")
    page.wait_for_selector(".status.ready")
    assert page.locator(".badge").inner_text() != before
    assert person.ask("Hello!")
