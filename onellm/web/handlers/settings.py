"""The settings: how answers are drawn, which language the page speaks, which model answers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from onellm.chat.sampling import Settings
from onellm.errors import OneLLMError
from onellm.utils.limits import LIMITS
from onellm.web.session import Session
from onellm.web.views import texts
from onellm.web.views.page import Page, as_user_error

ANEW = -1  # the seed that draws another answer each time
DEFAULTS = (Settings.temperature, Settings.top_p, Settings.max_new_tokens, ANEW, 0, "")


def checked(
    temperature: float, top_p: float, max_new_tokens: float, seed: float | None, frames: float, system: str
) -> tuple[Settings, int | None]:
    """Return the settings as the model takes them, and the frames a video is read as.

    Args:
        temperature: 0 answers with the likeliest tokens.
        top_p: only the likeliest tokens that make up this share are drawn.
        max_new_tokens: longest answer, in tokens.
        seed: None or `ANEW` draws anew each time.
        frames: frames a video is read as; 0 leaves it to the model.
        system: the system prompt.

    Raises:
        OneLLMError: a value is out of its range.
    """
    drawn = Settings(
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=_whole(max_new_tokens),
        seed=None if seed in (None, ANEW) else _whole(seed),
        system=system.strip() if isinstance(system, str) else system or "",
    )
    frames = _whole(frames or 0)
    if not isinstance(frames, int):
        raise OneLLMError("The frames of a video are no whole number; give another value.")
    return drawn, min(frames, LIMITS.video_sampled_frames) if frames > 0 else None


def _whole(value: Any) -> Any:
    """Return a whole number as such, as a slider may send 8.0; `Settings` refuses the rest."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Options:
    """Handlers of the settings."""

    def __init__(self, page: Page):
        self.page = page

    def reset(self) -> list:
        """Return the settings' first values."""
        return list(DEFAULTS)

    def translate(self, session: Session, language: str | None) -> dict:
        """Let the page speak a language; called when it opens, and when another one is chosen."""
        session.language = texts.match(language)
        shown = {self.page.parts["conversation"]: self.page.messages(session)}
        return self.page.texts(session) | shown | self.page.form(session)

    async def follow(self, session: Session) -> AsyncIterator[tuple[Any, ...]]:
        """Say how loading goes until it is over and the list of models is whole; then show what suits the model."""
        while self.page.engine.loading or self.page.engine.listing:
            yield *self.page.model(session), gr.skip()
            await asyncio.sleep(0.5)
        yield *self.page.model(session), self.page.cards(session.language)

    def list_models(self) -> None:
        """List the models anew."""
        self.page.engine.look()

    @as_user_error
    def switch(self, session: Session, event: gr.EventData) -> None:
        """Load another model instead of the present one."""
        self.page.changeable(session)
        self.page.engine.switch(self.page.model_name(str(event.model)), str(event.quantize))

    @as_user_error
    def cancel(self, session: Session, event: gr.EventData) -> None:
        """Give the loading up."""
        self.page.changeable(session)
        self.page.engine.cancel()
