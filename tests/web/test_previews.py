"""Previews of all eight kinds: their HTML, and how a browser draws it on a small Gradio page."""

import json
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from onellm.errors import FileError
from onellm.model import processing
from onellm.utils.limits import LIMITS
from onellm.web.gradio_internals import message_part
from onellm.web.security.uploads import sweep
from onellm.web.session import Attachment, Session, Turn
from onellm.web.views import previews, theme
from onellm.web.views.conversation import text
from onellm.web.views.previews import preview_file

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / "test-artefacts"
INPUTS = {
    modality: part["input"]
    for modality, part in json.loads((ROOT / "onellm/pretrained/onellm-tiny/config.json").read_text())[
        "modalities"
    ].items()
}
FILES = {
    "image": "image/coffee.jpg",
    "video": "video/animal.mp4",
    "audio": "audio/train.ogg",
    "point": "point/car.ply",
    "fmri": "fmri/face.npy",
    "imu": "imu/walking_upstairs.csv",
    "depth": "depth/chair.png",
    "normal": "normal/car.png",
}

BESIDE = {"picture": str(ROOT / "examples/image/cat.jpg")}


@pytest.fixture(scope="module", autouse=True)
def uploads(tmp_path_factory):
    """Keep what previews store in a folder of the tests."""
    folder = tmp_path_factory.mktemp("up loads#1")  # characters an address has to escape
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


def brain(folder):
    """A volume in three dimensions, [40, 48, 36]: a ball with two active spots."""
    import nibabel

    axes = [np.linspace(-1, 1, side) for side in (40, 48, 36)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    left, right = ((x - place) ** 2 + y**2 + z**2 for place in (-0.4, 0.4))
    spots = 3 * np.exp(-20 * right) - 2 * np.exp(-30 * left)
    volume = np.where(x**2 + y**2 + z**2 < 0.8, spots + np.random.default_rng(0).normal(0, 0.2, x.shape), 0)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), np.eye(4)), folder / "brain.nii.gz")
    return folder / "brain.nii.gz"


def long_sound(folder):
    """A rising tone of 30 s, more than the tiny model listens to."""
    import soundfile

    time_s = np.arange(30 * 16000) / 16000
    soundfile.write(
        folder / "long.wav", np.sin(2 * np.pi * (200 + 50 * time_s) * time_s) * np.minimum(1, time_s / 5), 16000
    )
    return folder / "long.wav"


def look(modality, inputs=True, language="en"):
    return preview_file(
        modality, str(ROOT / "examples" / FILES[modality]), {}, INPUTS[modality] if inputs else None, language
    )


def stored(html, suffix):
    """Return the files an HTML refers to."""
    found = re.findall(r'(?:src|data-figure)="gradio_api/file=([^"]+)"', html)
    return [Path(unquote(name)) for name in found if name.endswith(suffix)]


@pytest.mark.parametrize("modality", FILES)
def test_html_says_what_it_is_and_what_is_seen(modality, uploads):
    made = look(modality)
    assert Path(FILES[modality]).name in made.html and made.summary in made.html and not made.error
    assert re.search(r"The model sees (all )?[\d,.]+( × [\d,.]+)? ", made.html)
    assert len(made.html) < 8_000  # a stream sends it at every step
    files = stored(made.html, (".json", ".webp"))
    assert files and all(file.parents[1] == uploads.resolve() / "made" and file.stat().st_size for file in files)
    assert "The model sees" not in look(modality, inputs=False).html
    assert "模型看到" in look(modality, language="zh").html


def test_video_shows_the_frames_that_are_seen():
    made = look("video")
    assert made.html.count("<li>") == INPUTS["video"]["frames"] and "<video" in made.html
    assert look("video", inputs=False).html.count("<li>") == 16
    times_s = [float(time_s) for time_s in re.findall(r">(\d+\.\d) s<", made.html)]
    assert len(times_s) == INPUTS["video"]["frames"] and times_s == sorted(times_s) and times_s[0] < times_s[-1]


def test_sound_has_a_player_and_a_plot_where_what_is_not_heard_is_grey(tmp_path):
    made = look("audio")
    assert "<audio" in made.html and len(stored(made.html, ".json")) == 1 and "greyed" not in made.html
    made = preview_file("audio", str(long_sound(tmp_path)), {}, INPUTS["audio"])
    (figure,) = (json.loads(file.read_text()) for file in stored(made.html, ".json"))
    greyed_s = sum(shape["x1"] - shape["x0"] for shape in figure["layout"]["shapes"])
    used_s = float(re.search(r"sees ([\d.]+) of 30.0 seconds. What it leaves out is greyed", made.html)[1])
    assert abs(used_s + greyed_s - 30) < 0.1 and used_s < 20


def test_names_and_notes_are_no_markup(tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>&'\".xyz"
    path.write_text("0 0 0\n1 1 1\n")
    made = preview_file("point", str(path), {}, INPUTS["point"])
    assert "<img" not in made.html and "onerror=alert" in made.html and "&lt;img" in made.html
    with pytest.raises(FileError):
        preview_file("image", str(path), {})


def test_a_file_this_model_cannot_take_is_shown_and_told(tmp_path):
    made = preview_file("fmri", str(brain(tmp_path)), {}, INPUTS["fmri"])
    assert "the grid this model was trained on" in made.error and 'role="alert"' in made.html
    assert stored(made.html, ".json") and '<input type="range" min="0" max="23"' in made.html


def test_a_picture_beside_a_map(tmp_path):
    picture = str(ROOT / "examples/image/cat.jpg")
    made = preview_file("depth", str(ROOT / "examples" / FILES["depth"]), {"picture": picture}, INPUTS["depth"])
    assert "The picture beside the map" in made.html and len(stored(made.html, ".webp")) == 1


@pytest.mark.parametrize(
    ("modality", "extra"),
    [(modality, {}) for modality in FILES] + [("video", {"frames": 3}), ("depth", BESIDE), ("normal", BESIDE)],
)
def test_the_model_reads_a_file_as_its_preview_did(modality, extra, monkeypatch):
    """`modalities.load` keeps what it decoded, by file and options: the second reading is none."""
    read, load = [], previews.load_file

    def noting(*given, **options):
        read.append((*given, options))
        return load(*given, **options)

    for module in (previews, processing):
        monkeypatch.setattr(module, "load_file", noting)
    turn = Turn("What?", (Attachment(modality, str(ROOT / "examples" / FILES[modality]), **extra),))
    Session().view(turn.files[0], INPUTS)
    processing.OneLLMProcessor.load(turn.parts()[0])
    assert len(read) == 2 and read[0] == read[1]


def test_what_is_old_is_removed(uploads):
    (old,) = stored(look("image").html, ".webp")
    (new,) = stored(look("image").html, ".webp")
    past_s = time.time() - LIMITS.upload_lifetime_s - 1
    os.utime(old.parent, (past_s, past_s))
    sweep()
    assert not old.exists() and new.exists()


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_url(uploads, tmp_path_factory):
    """A page with all previews in a conversation whose answer streams, and one preview in a form."""
    import gradio as gr
    import plotly
    from fastapi.responses import FileResponse

    looks = [look(modality).html for modality in FILES]
    folder = tmp_path_factory.mktemp("more")
    looks.append(preview_file("fmri", str(brain(folder)), {}, INPUTS["fmri"]).html)
    looks.append(preview_file("audio", str(long_sound(folder)), {}, INPUTS["audio"]).html)

    def shown(answer):
        content = [message_part(f'<div class="sent-file">{html}</div>') for html in looks]
        asked = {"role": "user", "content": [*content, text("What is this?")]}
        return [asked, {"role": "assistant", "content": [text(answer)]}]

    def stream():
        for step in range(30):
            yield shown("word " * step)
            time.sleep(0.05)

    with gr.Blocks() as page:
        talk = gr.Chatbot(shown("Ready."), elem_id="talk", height=None, render_markdown=False)
        form = gr.HTML(look("point").html, elem_id="form")
        gr.Button("Ask", elem_id="go").click(stream, None, talk)
        gr.Button("Empty", elem_id="empty").click(lambda: "", None, form)
    library = Path(plotly.__file__).parent / "package_data/plotly.min.js"
    app, url, _ = page.launch(
        prevent_thread_lock=True,
        quiet=True,
        server_name="127.0.0.1",
        ssr_mode=False,
        allowed_paths=[str(ROOT / "examples"), str(folder)],
        theme=theme.theme(),
        css=theme.CSS,
        head=theme.HEAD,
    )
    app.router.routes.insert(0, _route("/onellm/plotly.min.js", lambda request: FileResponse(library)))
    yield url
    page.close()


def _route(path, answer):
    from starlette.routing import Route

    return Route(path, answer)


@pytest.fixture
def open_gallery(browser, page_url):
    contexts, errors = [], []

    def open_(width=1280, scheme="light", script=""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(script)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_url)
        page.wait_for_selector("#talk .plot")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not errors


def draw(page, selector=".plot"):
    """Bring plots onto the screen until they are drawn; what loads above them may move them away again."""
    for plot in page.locator(selector).all():
        for _ in range(120):
            plot.scroll_into_view_if_needed()
            if plot.get_attribute("data-state") == "drawn":
                break
            page.wait_for_timeout(500)
        else:
            pytest.fail(f"{plot} is {plot.get_attribute('data-state')}, not drawn")


def count_calls(page, name):
    """Count the calls of one of Plotly's functions from here on."""
    page.evaluate(
        f"() => {{ const old = Plotly.{name}; calls = 0; Plotly.{name} = (...all) => (calls++, old(...all)) }}"
    )


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_all_previews_are_drawn(open_gallery, width, scheme):
    page = open_gallery(width, scheme)
    draw(page)
    page.screenshot(path=ARTEFACTS / f"looks-{width}-{scheme}.png", full_page=True)
    wide = page.locator(".look, .look *").evaluate_all(
        "all => all.filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML)"
    )
    assert not wide
    assert page.locator(".look img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    assert page.locator("video").evaluate("one => one.readyState >= 1 && one.duration > 1")
    assert page.locator("audio").first.evaluate("one => one.readyState >= 1 && one.duration > 1")
    for place, box in enumerate(page.locator("#talk .look").all()):
        box.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        name = [*FILES, "volume", "long"][place]
        box.screenshot(path=ARTEFACTS / f"look-{name}-{width}-{scheme}.png")


@pytest.mark.browser
def test_streaming_leaves_plots_alone(open_gallery):
    page = open_gallery()
    draw(page)
    page.evaluate("document.querySelectorAll('.plot .canvas').forEach((one, i) => one.stamp = i)")
    count_calls(page, "react")
    page.locator("#go").click()
    page.wait_for_function("document.querySelector('#talk .bot').innerText.split('word').length > 29")
    assert page.evaluate("calls") == 0
    stamps = page.evaluate("[...document.querySelectorAll('.plot .canvas')].map(one => one.stamp)")
    assert stamps == list(range(len(stamps)))


@pytest.mark.browser
def test_elements_made_anew_keep_their_plot_and_removed_ones_are_freed(open_gallery):
    page = open_gallery()
    draw(page, "#form .plot")
    page.evaluate("document.querySelector('#form .canvas').stamp = 7")
    page.evaluate("() => { const form = document.querySelector('#form .look').parentElement; form.innerHTML += '' }")
    page.wait_for_function("document.querySelector('#form .canvas').stamp === 7")
    count_calls(page, "purge")
    page.locator("#empty").click()
    page.wait_for_function("window.calls === 1", timeout=60_000)


@pytest.mark.browser
def test_plots_follow_the_light(open_gallery):
    page = open_gallery()
    draw(page, ".look-imu .plot")
    ink = "document.querySelector('.look-imu .canvas').layout.font.color"
    light = page.evaluate(ink)
    page.evaluate("document.body.classList.toggle('dark')")
    page.wait_for_function(f"{ink} !== '{light}'")


@pytest.mark.browser
def test_keys_turn_points_and_the_slider_moves_through_the_brain(open_gallery):
    page = open_gallery()
    draw(page, "#form .plot")
    canvas = page.locator("#form .canvas")
    canvas.focus()
    eye = "document.querySelector('#form .canvas').layout.scene.camera.eye"
    before = page.evaluate(eye)
    for key in ("ArrowLeft", "ArrowUp", "+"):
        page.keyboard.press(key)
    page.wait_for_function(f"{eye}.x !== {before['x']} && {eye}.z !== {before['z']}")
    draw(page, ".plot:has(.slider)")
    slider = page.locator(".slider input")
    slider.focus()
    page.keyboard.press("Home")
    shown = "document.querySelector('.plot:has(.slider) .canvas').data.findIndex((one) => one.visible === true)"
    page.wait_for_function(f"{shown} === 0")
    page.keyboard.press("End")
    page.wait_for_function(f"{shown} === 69")


@pytest.mark.browser
def test_what_cannot_be_drawn_is_told(open_gallery):
    page = open_gallery(script="HTMLCanvasElement.prototype.getContext = () => null")
    page.locator("#form .plot").scroll_into_view_if_needed()
    page.get_by_text("cannot draw in three dimensions").first.wait_for()
    page.evaluate("document.querySelector('video').src = 'gradio_api/file=/none.mp4'")
    page.get_by_text("cannot play this format").wait_for()
