"""What gradio_client calls: /ask returns an answer, /ask_stream yields it as it grows."""

import inspect
import itertools
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_file_obj, traverse

from onellm.errors import OneLLMError
from onellm.modalities import MODALITIES, WITH_PICTURE
from onellm.model.messages import without_surrogates
from onellm.serving import answers
from onellm.serving.engine import Engine
from onellm.serving.metrics import counted
from onellm.web.security import uploads, visitors
from onellm.web.security.sessions import SESSIONS

logger = logging.getLogger(__name__)

PICTURES = {f"{modality}_picture": modality for modality in WITH_PICTURE}


class Blocks(gr.Blocks):
    """Gradio's blocks, which know who asks, take that visitor's uploads, fetch nothing, and say so.

    Gradio itself downloads what a file's path names if that is a URL, and answers {"error": null} to other paths.

    Attributes:
        session_id: of the state that holds a visitor's `Session`.
    """

    session_id = -1

    def forget(self, name: str) -> bool:
        """Drop what is kept of a session, unless an answer is on its way in it; tell whether that was done."""
        states = self.state_holder
        known = states.session_data.get(name)
        session = known.state_data.get(self.session_id) if known is not None else None
        if session is not None and session.busy:
            return False
        states.session_data.pop(name, None)
        states.time_last_used.pop(name, None)
        return True

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run one step of an event for the visitor who asked."""
        request, event_id = kwargs["request"], kwargs.get("event_id")
        visitor = visitors.from_event(request, event_id)
        session, known = request.session_hash or "", visitors.has_cookie(visitor)
        claim = SESSIONS.use if known and session != event_id else SESSIONS.may_use
        if session and not claim(session, visitor):
            raise gr.Error("This page belongs to another visitor; load it again.", print_exception=False)
        try:
            with visitors.serving(visitor, request.request.scope, session):
                return await super().process_api(*args, **kwargs)
        finally:
            if not known:  # nothing is kept of those who cannot be known again
                self.forget(session)

    async def preprocess_data(self, block_fn: Any, inputs: list, *args: Any, **kwargs: Any) -> list:
        """Check the files among an event's inputs before Gradio looks at them; what is left out at the end is None."""
        inputs = [without_surrogates(value) if isinstance(value, str) else value for value in inputs]
        inputs += [None] * (len(block_fn.inputs) - len(inputs))
        try:
            if len(inputs) > len(block_fn.inputs):
                raise ValueError(f"{len(inputs)} values for {len(block_fn.inputs)} inputs")
            named = [_files_of(value) for value in inputs]
            for path in itertools.chain(*named):
                uploads.check(path)
            stateful = any(isinstance(block, gr.State) for block in block_fn.inputs)
            if stateful and not visitors.has_cookie(visitors.current() or "cookie:"):  # outside of requests all may
                raise OneLLMError("The page is for browsers that keep its cookie; load it again, or call /ask.")
            taken = await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except gr.Error:
            raise
        except OneLLMError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:  # what pydantic, Gradio's own checks and its readers of recordings raise
            logger.info("refused input", exc_info=True)
            raise gr.Error(
                "An argument has not the form that /gradio_api/info describes; a file is an upload's path with "
                '"meta": {"_type": "gradio.FileData"}.',
                print_exception=False,
            ) from error
        for value, paths in zip(taken, named, strict=True):
            if paths:  # Gradio converts recordings
                uploads.give(value if isinstance(value, list) else [str(value)], visitors.current())
        return taken

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list:
        """Remember what a visitor's page shows once.

        Gradio makes a new component of each update, and keeps the next value, for us a whole conversation, under
        the new component's number: every step of every answer, for as long as the session lives.
        """
        shown = await super().postprocess_data(block_fn, predictions, state)
        if state is not None:
            for number in state.blocks_config.blocks.keys() - self.blocks.keys():
                del state.blocks_config.blocks[number]
                state.config_values.pop(number, None)
        return shown


def _files_of(value: Any) -> list[str]:
    """Return the paths of the files in an event's input."""
    paths: list[str] = []
    traverse(value, lambda file: paths.append(file["path"]), is_file_obj)
    return paths


def add(engine: Engine) -> None:
    """Add the endpoints to the page that is being laid out.

    Args:
        engine: the app's model.
    """
    with gr.Row(visible=False):
        message = gr.Textbox(label="message")
        files = [gr.File(label=name) for name in (*MODALITIES, *PICTURES)]
        answer = gr.Textbox(label="answer")

        def ask(*inputs: str | None) -> str:
            """Ask one question, about up to one file of each modality; returns the answer."""
            return "".join(_answer(engine, "ask", *inputs)).strip()

        def ask_stream(*inputs: str | None) -> Iterator[str]:
            """Ask one question, about up to one file of each modality; yields the answer so far."""
            said = ""
            for piece in _answer(engine, "ask_stream", *inputs):
                said += piece
                yield said.strip()  # also when nothing is new: Gradio can close a generator only then

        for endpoint in (ask, ask_stream):
            _name_arguments(endpoint)
            gr.Button().click(endpoint, [message, *files], answer, api_name=endpoint.__name__, concurrency_limit=None)


def _beside(folder: Path, name: str, _: int) -> Path:
    """Return where a file of a name goes."""
    return folder / name


def _answer(engine: Engine, face: str, message: str | None, *paths: str | None) -> Iterator[str]:
    """Answer one question about uploads in a conversation of its own.

    Raises:
        gr.Error: there is no answer, and why.
    """
    named = dict(zip((*MODALITIES, *PICTURES), paths, strict=True))
    try:
        with counted(face) as count:
            files: dict[str, dict] = {
                modality: {"path": uploads.check(named[modality])} for modality in MODALITIES if named[modality]
            }
            for name, modality in PICTURES.items():
                if named[name] and modality not in files:
                    raise OneLLMError(f"{name} lies beside a {modality} map, and there is none; give {modality} too.")
                if named[name]:
                    files[modality]["picture"] = uploads.check(named[name])
            with answers.private_folder() as folder:  # this face returns text alone
                path, owner = partial(_beside, folder), visitors.owner()
                asked = answers.stream(engine, count, message or "", output_path=path, owner=owner, **files)
                for thing in (yield from asked):
                    yield "\n" + (thing.get("error") or f"({thing['type']}: /v1/chat/completions returns the file)")
    except OneLLMError as error:
        raise gr.Error(str(error), print_exception=False) from error
    except Exception as error:
        logger.exception("/%s failed", face)
        raise gr.Error(answers.SURPRISE, print_exception=False) from error


def _name_arguments(endpoint: Callable) -> None:
    """Give an endpoint the names and defaults that gradio_client shows: those of its signature."""
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD
    optional = [inspect.Parameter(name, named, default=None) for name in (*MODALITIES, *PICTURES)]
    endpoint.__signature__ = inspect.Signature([inspect.Parameter("message", named), *optional])
