"""The VQ model that a stage saved: reading it, and putting it into a model."""

import json
from pathlib import Path

from safetensors.torch import load_file

from onellm.model.modeling import OneLLMForConditionalGeneration
from onellm.model.vq import VQModel
from train.recipe import RecipeError


def load_codes(folder: Path) -> VQModel:
    """Load the VQ model that `run` saved.

    Raises:
        RecipeError: there are none.
    """
    if not (folder / "codes.json").exists():
        raise RecipeError(f"There are no picture codes in {folder}; train them first: train/recipes/draw-1-codes.yaml.")
    model = VQModel(**json.loads((folder / "codes.json").read_text()))
    model.load_state_dict(load_file(folder / "codes.safetensors"))
    return model.eval().requires_grad_(False)


def load_codes_into(model: OneLLMForConditionalGeneration, runs: Path, source: str) -> None:
    """Copy a VQ model that a stage trained into a model.

    Raises:
        RecipeError: there are none, or they are of another size.
    """
    folder = runs / source
    codes = load_codes(folder if folder.exists() else Path(source))
    try:
        model.outputs["image"].load_state_dict(codes.state_dict())
    except (KeyError, RuntimeError) as error:
        raise RecipeError(
            f"The picture codes of {source} do not fit the model's; give 'outputs' the same sizes."
        ) from error
