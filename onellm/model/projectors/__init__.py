"""Projectors, side by side under one signature: features [B, N, D] -> soft tokens [B, M, D_llm]."""

from torch import nn

from onellm.errors import ModelError
from onellm.model.projectors.abstractor import Abstractor
from onellm.model.projectors.anchor import Anchor, WordAnchor
from onellm.model.projectors.base import Instruction, Projector
from onellm.model.projectors.pointwise import MLP, Bottleneck, Linear, Neighbours
from onellm.model.projectors.qformer import QFormer
from onellm.model.projectors.resampler import Resampler
from onellm.model.projectors.upm import UniversalProjection

__all__ = ["PROJECTORS", "Anchor", "Instruction", "Projector", "WordAnchor", "build_projector"]

PROJECTORS = {
    "upm": UniversalProjection,
    "linear": Linear,
    "mlp": MLP,
    "bottleneck": Bottleneck,
    "merge": Neighbours,
    "qformer": QFormer,
    "abstractor": Abstractor,
    "resampler": Resampler,
}


def build_projector(
    modalities: list[str], width: int, width_llm: int, settings: dict, tags: tuple[str, ...]
) -> Projector:
    """Build the projector that `settings` describe: `type` and its arguments.

    Args:
        modalities: of file.
        width: D of the features.
        width_llm: D_llm.
        settings: `OneLLMConfig.projector`. One that was trained for another LLM, `converted` wide, is built for that
            one and made to end in this one's embeddings. With an anchor of `words` it ends in the anchor's width.
        tags: which tags stand around a file's soft tokens.

    Raises:
        ModelError: the type is unknown (the message lists the valid ones), or a setting of it is.
    """
    arguments = {key: value for key, value in settings.items() if key not in ("type", "tags", "converted")}
    name = settings.get("type", "upm")
    if name not in PROJECTORS:
        raise ModelError(f"The projector '{name}' is not known; choose one of {', '.join(PROJECTORS)}.")
    anchor, before = settings.get("anchor") or {}, settings.get("converted")
    if "words" in anchor:
        if tags:
            raise ModelError("Tags have the width of one LLM and an anchor of words serves any; set 'tags' to [].")
        arguments["anchor"] = {"length": settings["queries"], **anchor}
    try:
        projector = PROJECTORS[name](
            modalities, width, anchor.get("width") or before or width_llm, tags=tags, **arguments
        )
    except TypeError as error:
        reason = str(error).rpartition("__init__() ")[2]
        raise ModelError(f"The projector '{name}' cannot be built: it {reason}; correct its settings.") from error
    if before:
        projector.convert(nn.Linear(before, width_llm))
    return projector
