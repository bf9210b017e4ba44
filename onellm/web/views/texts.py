"""What the page says, in the languages it speaks: one JSON file each in texts/, the same keys in all of them.

What a file's reader or the model says of an error stays English, as do the model's answers. Gradio's own `gr.I18n`
does not serve: it goes by the browser's language alone, so that the page could not switch, knows no `{value}`, and does
not reach HTML that is rendered here.
"""

import json
from functools import lru_cache
from pathlib import Path

from onellm.modalities import MODALITIES

FOLDER = Path(__file__).parent.parent / "texts"
LANGUAGES = {"en": "English", "zh": "中文"}  # as each calls itself
DEFAULT = "en"


@lru_cache
def texts(language: str) -> dict[str, str]:
    """Return a language's texts: key -> text with `{value}` placeholders; a modality without one says its own."""
    titles = {f"kind.{name}": modality.title for name, modality in MODALITIES.items()}
    expected = {f"kind.{name}.expects": modality.expects for name, modality in MODALITIES.items()}
    return titles | expected | json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))


def say(language: str, key: str, **values: object) -> str:
    """Return a text.

    Args:
        language: one of `LANGUAGES`.
        key: the text's name.
        **values: values of the placeholders.

    Raises:
        KeyError: there is no such text, or a placeholder has no value.
    """
    return texts(language)[key].format(**values)


def match(wanted: str | None) -> str:
    """Return the language that suits a browser's, such as "zh-CN"; English suits all others."""
    language = (wanted or "").replace("_", "-").partition("-")[0].lower()
    return language if language in LANGUAGES else DEFAULT
