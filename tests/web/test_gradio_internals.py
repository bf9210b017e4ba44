"""What the app uses of Gradio beyond its documented interface: a new version that changes it fails here first."""

import subprocess
import sys

import gradio as gr
import pytest
from gradio.components import chatbot
from gradio.state_holder import SessionState

from onellm.errors import OneLLMError
from onellm.web import gradio_internals
from onellm.web.handlers.endpoints import Blocks


def test_this_version_has_what_is_overridden():
    gradio_internals.check_blocks(gr.Blocks)
    assert all(name in vars(Blocks) for name in gradio_internals.OVERRIDDEN)
    with gr.Blocks() as blocks:
        gr.Textbox()
    state = SessionState(blocks)  # `Blocks.postprocess_data` takes components of updates out of both
    assert state.blocks_config.blocks.keys() == blocks.blocks.keys() and isinstance(state.config_values, dict)


@pytest.mark.parametrize("name", gradio_internals.OVERRIDDEN)
def test_one_that_would_not_guard_uploads_is_refused(name):
    async def other(self, something):
        pass

    for changed in (None, lambda self: None, other):
        with pytest.raises(OneLLMError, match=rf"Blocks\.{name}.*expected Gradio 6\.31; run pip install"):
            gradio_internals.check_blocks(type("Changed", (gr.Blocks,), {name: changed}))


def test_html_in_a_message_has_two_ways(monkeypatch):
    assert gradio_internals.message_part("<b>x</b>").value == "<b>x</b>"
    monkeypatch.delattr(chatbot, "ComponentMessage")
    part = gradio_internals.message_part("<b>x</b>")
    assert isinstance(part, gr.HTML) and part.value == "<b>x</b>"


@pytest.mark.parametrize("broken", [False, True])
def test_gradio_is_imported_with_and_without_its_stubs(broken):
    program = "import contextlib; from onellm.web import gradio_internals as internals\n"
    if broken:  # as if Gradio no longer took "no source file" for an answer
        program += (
            "keep = internals._without_stubs\n"
            "@contextlib.contextmanager\n"
            "def failing():\n"
            "    with keep():\n"
            "        import gradio.exceptions\n"
            "        raise TypeError('no source')\n"
            "    yield\n"
            "internals._without_stubs = failing\n"
        )
    program += "internals.load_gradio(); import gradio; print(gradio.Blocks.__name__)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "Blocks" and ("type stubs" in ran.stderr) == broken, ran.stderr
