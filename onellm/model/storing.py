"""Saving and loading: parts that come from elsewhere are referred to by name, not copied."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import load_state_dict

from onellm.model import base_parts


class Storing:
    """The part of the model that is about its folder."""

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, *args: Any, **kwargs: Any):
        """Load base parts together with the folder's tensors: they are cast, placed and quantised like these."""
        if model.config.base_parts:
            state_dict = dict(state_dict or {})
            for file in checkpoint_files or []:
                state_dict |= load_state_dict(file)
            state_dict |= model.base_tensors()
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def base_tensors(self) -> dict[str, torch.Tensor]:
        """Fetch the parts named in `config.base_parts`: name in this model -> tensor.

        Raises:
            ModelError: a part cannot be fetched.
            RuntimeError: a part lacks a tensor the model has.
        """
        found = {}
        for target, name in self.config.base_parts.items():
            tensors = load_state_dict(str(base_parts.fetch(name) / "model.safetensors"))
            for key in self.get_submodule(target).state_dict():
                if "lora_" in key or key == "lm_head.weight" and self.config.text_config.tie_word_embeddings:
                    continue
                plain = key.replace(".base_layer", "")
                if plain not in tensors:
                    raise RuntimeError(f"The base part {name} has no tensor {plain}.")
                found[f"{target}.{key}"] = tensors[plain]
        return found

    @torch.no_grad()
    def load_base_parts(self) -> None:
        """Copy the weights of the base parts into a model that was not loaded from a folder."""
        values = self.state_dict(keep_vars=True)
        for key, tensor in self.base_tensors().items():
            values[key].copy_(tensor)

    def save_pretrained(self, save_directory: Any, *args: Any, state_dict: dict | None = None, **kwargs: Any) -> None:
        """Save a model folder; base parts are referred to by name, not copied."""
        referred = tuple(f"{part}." for part in self.config.base_parts)
        state_dict = {
            key: value
            for key, value in (state_dict or self.state_dict()).items()
            if not key.startswith(referred) or "lora_" in key
        }
        super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
