"""The first things a newcomer does: a file of each kind, further questions, an example, Stop, wrong files."""

import re

import pytest

from onellm.modalities import MODALITIES

pytestmark = pytest.mark.browser
WIDEST = ("video", "audio", "point", "imu")  # previews that a phone has to make room for


def test_a_file_of_each_kind(open_page, screen, example_files):
    person = open_page(*screen)
    person.see("empty")
    for modality in MODALITIES if screen[0] > 360 else WIDEST:
        person.give(modality, example_files[modality])
        assert person.chips.count() == 1
        assert "The model" in person.chips.inner_text()  # how much of the file it takes
        person.see(f"form-{modality}")
        assert person.ask("What is this?")
        assert person.chips.count() == 0  # the form is empty again
        assert example_files[modality].name in person.questions.last.inner_text()
        person.see(f"answer-{modality}")
        person.begin_anew()


def test_later_questions(open_page, example_files):
    person = open_page()
    person.give("image", example_files["image"])
    assert person.ask("What is this?")
    assert person.ask("What was in the picture?")
    person.give("imu", example_files["imu"])
    assert person.ask("What is the person doing?")
    assert person.questions.count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_an_example_runs_on_a_click(open_page, width, scheme):
    person = open_page(width, 740, scheme)
    assert person.page.evaluate("document.documentElement.scrollWidth") == width
    person.see("welcome")
    person.page.locator(".example").first.click()
    person.wait()
    assert person.answer()
    assert person.page.evaluate("document.documentElement.scrollWidth") == width
    person.see("example")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop(open_page, how):
    person = open_page()
    person.page.locator("#message textarea").fill("Tell me a long story about a journey around the whole world.")
    person.page.locator("#send").click()
    person.page.wait_for_function("document.querySelector('#conversation .bot')?.innerText.split(' ').length > 2")
    if how == "Escape":
        person.page.keyboard.press("Escape")
    else:
        person.page.locator("#stop").dispatch_event("click")  # the page moves while words stream in
    person.page.wait_for_selector("#send", state="visible", timeout=60_000)
    person.page.wait_for_selector('#conversation .bot.message :text("Stopped.")', timeout=60_000)
    said = person.answer()
    person.page.wait_for_timeout(1_000)
    assert person.answer() == said
    assert person.ask("Hello!")


def test_errors_are_words_and_nothing_is_lost(open_page, tmp_path):
    person = open_page(360, 740, "dark")
    broken = tmp_path / "<b>broken.png"
    broken.write_text("no picture")
    person.give("image", broken)
    assert re.search(r"expected a picture", person.chips.locator(".note.error").inner_text())
    person.page.locator("#message textarea").fill("What is <this>?")
    person.page.locator("#send").click()
    person.page.locator(".toast-body").get_by_text("expected a picture").wait_for()
    person.see("error")
    assert person.page.locator("#message textarea").input_value() == "What is <this>?"
    assert person.chips.count() == 1
    person.act("remove")
    person.chips.wait_for(state="detached")
    assert person.ask("What is <this>?")
    assert "What is <this>?" in person.questions.inner_text()
