"""Layouts of published checkpoints, one file a family, and the choice among them.

A new one is a file here with a subclass of `Layout`, and a line in `LAYOUTS`.
"""

from collections.abc import Iterable
from fnmatch import filter as matching

from onellm.errors import ModelError
from onellm.hub.layouts.base import ZEROS, Layout, Shapes, Tensor, plan_with
from onellm.hub.layouts.blip2 import Blip2Layout
from onellm.hub.layouts.lavin import LavinLayout, LavinOnTransformersLayout
from onellm.hub.layouts.lavis import LavisLayout
from onellm.hub.layouts.llava import LlavaLayout
from onellm.hub.layouts.llava_vicuna import LlavaVicunaLayout
from onellm.hub.layouts.mplug_owl import MplugOwlLayout
from onellm.hub.layouts.onellm import OneLLMLayout
from onellm.hub.layouts.pandagpt import PandaGptLayout

__all__ = ["LAYOUTS", "ZEROS", "Layout", "Shapes", "Tensor", "plan_with", "recognise"]

LAYOUTS: tuple[Layout, ...] = (
    OneLLMLayout(),
    Blip2Layout(),
    LlavaLayout(),
    LlavaVicunaLayout(),
    LavisLayout(),
    MplugOwlLayout(),
    LavinLayout(),
    LavinOnTransformersLayout(),
    PandaGptLayout(),
)


def recognise(keys: Iterable[str], preset: str | None = None) -> Layout:
    """Find the layout of a checkpoint.

    Args:
        keys: of the checkpoint.
        preset: which model it is, where the keys do not tell.

    Raises:
        ModelError: it is none that is known, or not one of the preset.
    """
    keys = list(keys)
    candidates = [layout for layout in LAYOUTS if preset is None or preset in layout.presets]
    if not candidates:
        known = ", ".join(name for layout in LAYOUTS for name in layout.presets)
        raise ModelError(f"No published checkpoint makes '{preset}'; choose one of {known}.")
    for layout in candidates:
        renamed = [layout.rename(key) for key in keys]
        if all(matching(renamed, mark) for mark in layout.marks):
            return layout
    expected = "; or ".join(f"{layout.title}: {', '.join(layout.marks)}" for layout in candidates)
    raise ModelError(
        f"This is the checkpoint of another model (its first key is '{keys[0] if keys else ''}'); expected are keys of "
        f"{expected}; give another file, or all the files of the model."
    )
