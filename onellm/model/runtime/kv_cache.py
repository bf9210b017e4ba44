"""A KV cache that grows in place."""

import torch
from transformers.cache_utils import Cache, DynamicLayer

STEP = 256  # positions a full buffer grows by, at least


class GrowingLayer(DynamicLayer):
    """A dynamic layer that writes into spare room instead of copying everything a token."""

    _room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [B, H, L, head_dim] keys and values; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, length = self.get_seq_length(), key_states.shape[-2]
        end = start + length
        if self._room is None or end > self._room[0].shape[-2] or not self._owns(start):
            size = end + max(STEP, end // 2)
            old = self.keys, self.values
            self._room = tuple(
                new.new_empty((*new.shape[:2], size, new.shape[-1])) for new in (key_states, value_states)
            )
            if start:
                for room, kept in zip(self._room, old, strict=True):
                    room[..., :start, :] = kept
        keys, values = self._room
        keys[..., start:end, :] = key_states
        values[..., start:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def _owns(self, start: int) -> bool:
        """Whether what is kept lies in the room: reordering, repeating and selecting rows copy it elsewhere."""
        return not start or self.keys.data_ptr() == self._room[0].data_ptr()

    def reset(self) -> None:
        """Forget everything."""
        self._room = None
        super().reset()


class GrowingCache(Cache):
    """A dynamic cache of `GrowingLayer`s: any model without sliding windows can use it."""

    def __init__(self):
        super().__init__(layer_class_to_replicate=GrowingLayer)
