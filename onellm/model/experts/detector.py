"""NanoDet-g: finds the 80 kinds of things of COCO in a picture, each with its box."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

STRIDES = (8, 16, 32)
BINS = 11  # a side's distance from the centre is a distribution over 0..10 strides
MEAN = (103.53, 116.28, 123.675)  # blue, green, red
STD = (57.375, 57.12, 58.395)
LABELS = (
    "person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|"
    "bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|"
    "skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|"
    "cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|"
    "potted plant|bed|dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|"
    "refrigerator|book|clock|vase|scissors|teddy bear|hair drier|toothbrush"
).split("|")


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.LeakyReLU(0.1))


class _Doubled(nn.Module):
    """Two convolutions of half the width, side by side."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = _conv(width, width // 2), _conv(width // 2, width // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return torch.cat([self.second(x), x], dim=1)


class _Stage(nn.Module):
    """A cross-stage-partial block: [B, W, H, W'] in, twice the width out."""

    def __init__(self, width: int, blocks: int, stride: int):
        super().__init__()
        self.enter = _conv(width, width, stride=stride)
        self.blocks = nn.Sequential(*(_Doubled(width) for _ in range(blocks)))
        self.leave = _conv(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        return torch.cat([self.leave(self.blocks(x)), x], dim=1)


class NanoDet(nn.Module):
    """NanoDet-g (Apache-2.0; 3.8 M parameters, 22.9 mAP on COCO as published), batch norms folded.

    Modules stand in the order in which the published graph calls its convolutions.
    Source: https://github.com/RangiLyu/nanodet
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, stride=2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList(
            [_Stage(32, 1, 1), _Stage(64, 2, 2), _Stage(128, 2, 2), _Stage(256, 3, 2)],
        )
        self.laterals = nn.ModuleList([nn.Conv2d(width, 128, 1) for width in (128, 256, 512)])
        outputs = len(LABELS) + 4 * BINS
        self.heads = nn.ModuleList([nn.Sequential(_conv(128, 128), nn.Conv2d(128, outputs, 1)) for _ in STRIDES])

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find things.

        Args:
            pictures: [B, 3, H, W] float32, blue, green and red, normalised; H and W multiples of 32.

        Returns:
            Scores [B, N, 80] in 0..1, and boxes [B, N, 4] as left, top, right, bottom in pixels.
        """
        x, features = self.stem(pictures), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        fine, middle, coarse = (lateral(x) for lateral, x in zip(self.laterals, features[1:], strict=True))
        middle = middle + _resize(coarse, middle)
        fine = fine + _resize(middle, fine)
        middle = middle + _resize(fine, middle)
        coarse = coarse + _resize(middle, coarse)
        outputs = [head(x) for head, x in zip(self.heads, (fine, middle, coarse), strict=True)]
        scores = torch.cat([x[:, : len(LABELS)].flatten(2) for x in outputs], dim=2).sigmoid()
        boxes = [_boxes(x[:, len(LABELS) :], stride) for x, stride in zip(outputs, STRIDES, strict=True)]
        return scores.transpose(1, 2), torch.cat(boxes, dim=1)


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, like.shape[-2:], mode="bilinear")


def _boxes(bins: torch.Tensor, stride: int) -> torch.Tensor:
    """Turn distributions [B, 4 * BINS, H, W] into boxes [B, H * W, 4] around the cells' centres."""
    count, _, height, width = bins.shape
    shares = bins.view(count, 4, BINS, height * width).softmax(dim=2)
    distances = torch.einsum("bskn,k->bns", shares, torch.arange(BINS, dtype=bins.dtype, device=bins.device))
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centres = torch.stack([x, y], dim=-1).view(-1, 2).to(bins)
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1) * stride


def convert(source: Path, out: Path) -> None:
    """Take the float weights out of the published TensorFlow.js graph.

    Args:
        source: nanodet.bin; nanodet.json, which says what lies where, beside it.
        out: folder for model.safetensors.
    """
    from safetensors.torch import save_file

    graph = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    content, start, tensors = source.read_bytes(), 0, {}
    for entry in (entry for group in graph["weightsManifest"] for entry in group["weights"]):
        dtype = np.dtype(entry.get("quantization", {}).get("dtype", entry["dtype"]))
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(content, dtype, count, start).astype(np.float32).reshape(entry["shape"])
        tensors[entry["name"]] = torch.from_numpy(values)
        start += count * dtype.itemsize
    nodes = graph["modelTopology"]["node"]
    users = {node["input"][0]: node for node in nodes if node["op"] == "Add"}  # a convolution's bias is added to it
    layers = sorted((node for node in nodes if node["op"] == "Conv2D"), key=_number)
    values = []
    for node in layers:
        values += [tensors[node["input"][1]].permute(3, 2, 0, 1), tensors[users[node["name"]]["input"][1]]]
    names = NanoDet().state_dict()
    save_file(
        {name: value.contiguous() for name, value in zip(names, values, strict=True)},
        out / "model.safetensors",
    )


def _number(node: dict) -> int:
    """Return the place of a convolution in the graph: "…/convolution_7" is the eighth."""
    return int((node["name"].rpartition("_")[2]) if "_" in node["name"].rpartition("/")[2] else 0)
