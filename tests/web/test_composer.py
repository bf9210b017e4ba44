"""The form in a real browser: files come by drop, paste, microphone and camera, and say what they are."""

import pytest

pytestmark = pytest.mark.browser
WIDE = pytest.mark.parametrize("screen", ["wide"], indirect=True)  # where a phone shows nothing else


@WIDE
def test_a_dropped_file_is_recognised_by_its_content(open_page, screen, example_files):
    person = open_page(*screen)
    person.drop(example_files["audio"])
    person.chips.wait_for()
    assert person.chips.locator("audio").count() == 1
    assert person.chips.locator(".choices button").count() == 0  # it can be nothing else
    assert person.ask("What do you hear?")


def test_one_click_chooses_between_kinds(open_page, screen, example_files):
    person = open_page(*screen)
    person.drop(example_files["normal"])
    person.chips.wait_for()
    modalities = [choice.get_attribute("data-kind") for choice in person.chips.locator(".choices button").all()]
    assert modalities[0] == "normal" and "image" in modalities
    assert person.chips.locator('[aria-pressed="true"]').get_attribute("data-kind") == "normal"
    person.see("choice")
    person.act("choose", kind="image")
    person.page.wait_for_selector('.choices [data-kind="image"][aria-pressed="true"]')
    assert "picture" in person.ask("What is this?").lower()


@WIDE
def test_a_drop_on_a_widget_is_that_kind(open_page, screen, example_files):
    person = open_page(*screen)
    person.drop(example_files["normal"], "#card-image")
    person.chips.wait_for()
    assert person.chips.locator(".choices button").count() == 0
    assert person.chips.locator(".look-image").count() == 1


@WIDE
def test_paste(open_page, screen, example_files):
    person = open_page(*screen)
    person.paste(example_files["image"], type_="image/jpeg")
    person.chips.wait_for()
    assert person.chips.locator("img").count() == 1


def test_many_files_a_turn_and_removing_one(open_page, screen, example_files):
    person = open_page(*screen)
    for modality in ("image", "audio", "point"):
        person.give(modality, example_files[modality])
    person.act("sample", kind="image")  # a second picture
    person.chips.nth(3).wait_for()
    person.act("remove", last=False)
    person.page.wait_for_function("document.querySelectorAll('#attached .chip').length === 3")
    person.see("many-files")
    assert person.ask("What is this?")
    assert person.questions.locator(".sent-file").count() == 3


def test_a_photo_beside_a_map(open_page, screen, example_files):
    person = open_page(*screen)
    person.give("depth", example_files["depth"])
    with person.page.expect_file_chooser() as chooser:
        person.act("beside")
    chooser.value.set_files(example_files["image"])
    person.page.get_by_role("button", name="Change the photo beside it").wait_for()
    assert person.ask("What is in it?")


@WIDE
def test_a_file_of_no_kind_is_refused_in_words(open_page, screen, tmp_path):
    person = open_page(*screen)
    program = tmp_path / "program.exe"
    program.write_bytes(b"MZ" + bytes(2000))
    person.drop(program)
    person.chips.locator(".note.error").wait_for()
    assert "program.exe" in person.chips.inner_text() and "expected" in person.chips.inner_text()


def test_microphone_and_camera(open_page, screen):
    person = open_page(*screen)
    person.open("record")
    person.page.locator("#mic button.record").click()
    person.page.wait_for_timeout(1_500)
    person.page.locator("#mic button.stop-button").click()
    person.chips.locator("audio").wait_for()
    person.page.locator("#camera").get_by_text("Click to Access Webcam").click()
    person.page.locator("#camera video").wait_for()
    person.page.wait_for_timeout(500)
    person.page.locator('#camera button[aria-label="capture photo"]').click()
    person.chips.locator(".look-image").wait_for()
    person.see("recorded")
    assert person.ask("What is this?")
