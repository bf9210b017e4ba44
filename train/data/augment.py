"""What alignment varies in a file without changing what it shows.

Source: OneLLM's training: pictures are cropped at random (0.9 to 1 of the area, side ratios 3/4 to 4/3), spectrograms
masked (up to 48 mel bands, up to 192 frames).
"""

import dataclasses
import math

import numpy as np
import torch

from onellm.modalities import Sample

AREA, RATIO = (0.9, 1.0), (0.75, 4 / 3)
MASKED_BANDS, MASKED_FRAMES = 48, 192
PICTURES = ("image", "video", "depth", "normal")


def vary_sample(sample: Sample) -> Sample:
    """Crop what is a picture; a map and the picture beside it alike, all frames of a video alike."""
    if sample.modality not in PICTURES:
        return sample
    axis = 1 if sample.modality == "video" else 0
    height, width = sample.array.shape[axis : axis + 2]
    top, left, rows, columns = _box(height, width)
    crop = (slice(None),) * axis + (slice(top, top + rows), slice(left, left + columns))
    picture = sample.picture
    if picture is not None:
        down, across = picture.shape[0] / height, picture.shape[1] / width
        box = [math.floor(top * down), math.ceil((top + rows) * down)]
        box += [math.floor(left * across), math.ceil((left + columns) * across)]
        picture = np.ascontiguousarray(picture[box[0] : box[1], box[2] : box[3]])
    return dataclasses.replace(sample, array=np.ascontiguousarray(sample.array[crop]), picture=picture)


def vary_tensor(modality: str, tensor: torch.Tensor) -> torch.Tensor:
    """Mask a band of frequencies and a stretch of time of a spectrogram [1, M, S]; the rest is left alone."""
    if modality != "audio" or tensor.dim() != 3:
        return tensor
    tensor = tensor.clone()
    for axis, longest in ((1, MASKED_BANDS), (2, MASKED_FRAMES)):
        size = tensor.shape[axis]
        length = int(torch.randint(0, min(longest, size) + 1, (1,)))
        start = int(torch.randint(0, size - length + 1, (1,)))
        tensor.narrow(axis, start, length).zero_()
    return tensor


def _box(height: int, width: int) -> tuple[int, int, int, int]:
    """Draw a box (top, left, height, width) inside a picture."""
    from torchvision.transforms import RandomResizedCrop

    blank = torch.empty(1, 1, 1).expand(1, height, width)  # only its size is looked at
    return RandomResizedCrop.get_params(blank, list(AREA), list(RATIO))
