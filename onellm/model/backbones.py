"""Frozen pretrained backbones: what is seen goes through EfficientNet-Lite2, what is heard through YAMNet.

Both are classifiers. `BackboneTokens` reads two things of them: the class probabilities and the pooled features.
"""

import torch
from torch import nn


class Backbone(nn.Module):
    """A frozen classifier; it stays in evaluation mode whatever its owner does."""

    classes: int
    features: int

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: batch norms keep their statistics."""
        return super().train(False)


class EfficientNetLite2(Backbone):
    """ImageNet's EfficientNet-Lite2 (Apache-2.0), built by timm."""

    classes, features = 1000, 1280

    def __init__(self):
        super().__init__()
        import timm

        self.net = timm.create_model("tf_efficientnet_lite2", pretrained=False)

    @property
    def head(self) -> torch.Tensor:
        """[C, F], one row a class."""
        return self.net.classifier.weight

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Classify [B, 3, 224, 224] pictures: probabilities [B, C] that sum to 1, features [B, F]."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        pooled = self.net.forward_head(self.net.forward_features(pictures), pre_logits=True)
        return self.net.classifier(pooled).softmax(dim=-1), pooled


class _SamePad(nn.Module):
    """TensorFlow's padding of a 3x3 convolution of stride 2: nothing before, one behind."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (0, 1, 0, 1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = (kernel - 1) // 2 if stride == 1 else 0
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
    return nn.Sequential(nn.Identity() if stride == 1 else _SamePad(), conv, nn.ReLU())


class YamNet(Backbone):
    """AudioSet's YAMNet (Apache-2.0), a MobileNet v1 over log-mel patches, batch norms folded.

    Source: https://github.com/tensorflow/models/tree/master/research/audioset/yamnet
    """

    classes, features = 521, 1024
    # (output channels, stride) of the 13 separable layers
    layers = [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]

    def __init__(self):
        super().__init__()
        blocks, width = [_conv(1, 32, 3, stride=2)], 32
        for outputs, stride in self.layers:
            blocks += [_conv(width, width, 3, stride, groups=width), _conv(width, outputs, 1)]
            width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, self.classes)

    @property
    def head(self) -> torch.Tensor:
        """[C, F], one row a class."""
        return self.classifier.weight

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Classify [B, 1, 96, 64] log-mel patches: probabilities [B, C] in 0..1 each, features [B, F]."""
        pooled = self.blocks(patches).mean(dim=(2, 3))
        return self.classifier(pooled).sigmoid(), pooled


BACKBONES = {"efficientnet-lite2": EfficientNetLite2, "yamnet": YamNet}
