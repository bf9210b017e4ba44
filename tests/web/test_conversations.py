"""Taking back, asking again, and keeping conversations, in a real browser."""

import json
import zipfile

import pytest

pytestmark = pytest.mark.browser
WIDE = pytest.mark.parametrize("screen", ["wide"], indirect=True)  # where a phone shows nothing else


@pytest.fixture
def person(open_page, screen, example_files):
    """A person who has asked about a picture."""
    person = open_page(*screen)
    person.give("image", example_files["image"])
    person.first = person.ask("What is this?")
    return person


@WIDE
def test_retry_keeps_the_file(person):
    person.act("retry")
    person.wait()
    assert person.answer() == person.first  # the likeliest words, of the same picture
    assert person.questions.count() == 1


def test_undo_fills_the_form(person):
    person.act("undo")
    person.page.wait_for_selector("#welcome", state="visible")
    assert person.page.locator("#message textarea").input_value() == "What is this?"
    assert person.chips.count() == 1
    assert person.ask() == person.first


def test_edit_and_resend_keeps_the_files_and_drops_what_followed(person):
    assert person.ask("Is it a dog?")
    person.act("edit", last=False)
    person.page.locator(".editing").wait_for()
    assert person.page.locator("#message textarea").input_value() == "What is this?"
    person.see("editing")
    person.act("cancel_edit")
    person.page.locator(".editing").wait_for(state="detached")
    assert person.questions.count() == 2
    person.act("edit", last=False)
    person.chips.wait_for()
    person.page.locator("#message textarea").fill("What does the picture show?")
    person.page.locator("#send").click()
    person.wait()
    assert person.questions.count() == 1
    assert "What does the picture show?" in person.questions.inner_text()
    assert person.questions.locator(".sent-file").count() == 1


@WIDE
def test_copy(person):
    person.act("copy")
    person.page.wait_for_function("navigator.clipboard.readText().then((text) => text.length > 0)")
    assert person.page.evaluate("navigator.clipboard.readText()").strip() == person.first


@WIDE
def test_a_thumb_is_logged_on_this_machine(person, app_folder):
    person.act("vote", vote="up")
    person.page.wait_for_selector('[data-vote="up"][aria-pressed="true"]')
    entry = json.loads((app_folder / "feedback.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert entry["vote"] == "up" and entry["answer"] == person.first and entry["kinds"] == ["image"]


def test_conversations_stay_in_the_browser(person):
    page = person.page
    person.begin_anew()
    assert person.ask("Hello!")
    page.reload()
    page.wait_for_selector(".status.ready")
    page.get_by_text("Hello!").first.wait_for()  # the page comes back to where it was
    person.open("history")
    page.locator(".history-open").nth(1).wait_for()
    assert page.locator(".history-open").count() == 2
    person.see("history")
    page.locator(".history-open", has_text="What is this?").click()
    page.wait_for_selector("#conversation .sent-file")
    assert person.answer() == person.first
    assert person.ask("What was in the picture?")  # the model has met the picture again
    page.get_by_role("button", name="Delete: Hello!").click()
    page.wait_for_function("document.querySelectorAll('.history-open').length === 1")


@WIDE
def test_a_file_the_server_forgot_comes_back_from_the_browser(person, app_folder):
    page = person.page
    page.wait_for_timeout(1_000)  # the browser keeps the file behind the answer
    page.locator("#new").click()
    for file in (app_folder / "uploads").rglob("cat.jpg"):
        file.unlink()
    person.open("history")
    page.locator(".history-open").first.click()
    page.wait_for_selector("#conversation .sent-file img")
    assert person.ask("What is this?")


@pytest.mark.parametrize("form", ["json", "zip"])
def test_export_and_import(person, tmp_path, form):
    page = person.page
    person.open("history")
    with page.expect_download() as download:
        person.act("export", format=form)
    file = tmp_path / f"kept.{form}"
    download.value.save_as(file)
    if form == "zip":
        with zipfile.ZipFile(file) as archive:
            assert any(name.endswith("cat.jpg") for name in archive.namelist())
    person.begin_anew()
    with page.expect_file_chooser() as chooser:
        page.locator("#import").click()
    chooser.value.set_files(file)
    page.wait_for_selector("#conversation .user.message")
    assert person.answer() == person.first
    if form == "zip":
        assert person.questions.locator("img").count() == 1
        assert person.ask("What was in the picture?")
    else:
        assert "no longer here" in person.questions.inner_text()


@WIDE
def test_export_as_markdown(person, tmp_path):
    person.open("history")
    with person.page.expect_download() as download:
        person.act("export", format="md")
    download.value.save_as(tmp_path / "kept.md")
    text = (tmp_path / "kept.md").read_text(encoding="utf-8")
    assert "What is this?" in text and "Image: cat.jpg" in text and person.first in text


@WIDE
def test_a_file_that_is_no_conversation_is_refused_in_words(person, tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"version": 9}')
    person.open("history")
    with person.page.expect_file_chooser() as chooser:
        person.page.locator("#import").click()
    chooser.value.set_files(wrong)
    person.page.locator(".toast-body").get_by_text("not a conversation").wait_for()
    assert person.answer() == person.first
