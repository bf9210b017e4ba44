"""What all layouts of published checkpoints have in common: which of their keys make up which of our tensors.

Names are listed once, from our side (`Layout.rules`): a key of a checkpoint is read by one of our tensors, or listed in
`Layout.dropped`, or refused.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from statistics import mode

import torch

from onellm.errors import ModelError
from onellm.model.configuration import OneLLMConfig
from onellm.model.modeling import OneLLMForConditionalGeneration

Shapes = Mapping[str, Sequence[int]]
"""Key of a checkpoint -> shape."""

ZEROS = ""
"""Stands among a rule's keys for rows that the checkpoint leaves out because they are zero."""

COMPUTED = ("*.position_ids", "*.rotary_emb.inv_freq")  # what older versions of transformers saved though it is known


class Layout:
    """How one family of checkpoints names and shapes what our parts have.

    Attributes:
        title: what such a checkpoint is, for errors.
        advice: what to do with one that is not as expected, for errors.
        marks: patterns (of `fnmatch`); a checkpoint with a key for each of them has this layout.
        presets: names of presets that such a checkpoint may be; the first one is meant where none is named.
        renames: older or newer names of the same keys: regular expression -> replacement, applied in turn.
        rules: regular expression of our name -> the keys whose rows, one below the other, are our tensor; a key may be
            `ZEROS`. The first rule that matches counts.
        dropped: patterns of keys, as they are after `renames`, that nothing of ours reads.
        padded: regular expression of our name -> how many axes of length 1 the checkpoint has before ours.
        meta_rotary: the LLM's queries and keys are in Meta's order, which rotates neighbours (0, 1); transformers
            rotates the halves (0, n / 2).
    """

    title = ""
    advice = "download it anew"
    marks: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    renames: Mapping[str, str] = {}
    rules: Mapping[str, Sequence[str]] = {}
    dropped: tuple[str, ...] = ()
    padded: Mapping[str, int] = {}
    meta_rotary = False

    def read_config(self, shapes: Shapes, params: Mapping, preset: str | None) -> OneLLMConfig:
        """Read the model's configuration.

        Args:
            shapes: of the checkpoint's tensors, under the names they have after `renames`.
            params: what shapes do not tell: the configuration beside the checkpoint, whatever its form.
            preset: the preset that was asked for; one of `presets`.

        Raises:
            ModelError: it cannot be known.
        """
        return OneLLMConfig.from_preset(preset or self.presets[0], **params)

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that our tensor (or its share of rows) has in the checkpoint."""
        return (*(1,) * next((n for rule, n in self.padded.items() if re.fullmatch(rule, name)), 0), *shape)

    def arrange(self, name: str, tensor: torch.Tensor, config: OneLLMConfig) -> torch.Tensor:
        """Bring the rows of our tensor, put together as they are in the checkpoint, into our order."""
        rotary = self.meta_rotary and re.search(r"self_attn\.([qk])_proj\.weight", name)
        if not rotary:
            return tensor
        text = config.text_config
        heads = text.num_attention_heads if rotary[1] == "q" else text.num_key_value_heads
        return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)

    def rename(self, key: str) -> str:
        """Return the name a key has today."""
        for pattern, replacement in self.renames.items():
            key = re.sub(pattern, replacement, key)
        return key

    def keys_of(self, name: str) -> list[str]:
        """Return the checkpoint's keys that one of our tensors is made of, `ZEROS` among them."""
        for rule, keys in self.rules.items():
            if match := re.fullmatch(rule, name):
                return [match.expand(key) for key in keys]
        raise ModelError(f"{self.title} has nothing for this model's {name}; choose another preset.")

    def refuse(self, faults: list[str]) -> None:
        """Raise where there are faults: the first five in words, and how many more."""
        if faults:
            more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise ModelError(
                f"The checkpoint does not have the layout of {self.title} ({'; '.join(faults[:5])}{more}); "
                f"{self.advice}."
            )

    # ---- sizes, for `read_config` -----------------------------------------------------------------------------

    def size(self, shapes: Shapes, pattern: str, axis: int) -> int:
        """Return a size that keys of a pattern tell.

        Where many keys tell the same size the commonest counts, so that one misshapen key does not lead to complaints
        about all the others.
        """
        found = [shape for key, shape in shapes.items() if fnmatch(key, pattern)]
        values = [shape[axis] for shape in found if -len(shape) <= axis < len(shape) and shape[axis]]
        if not values:
            self.refuse([f"{pattern} is {'misshapen' if found else 'missing'}"])
        return mode(values)

    def count(self, shapes: Shapes, pattern: str) -> int:
        """Count the numbers that stand for the last `#` of a pattern."""
        rule = re.compile(re.escape(pattern).replace(r"\#", r"(\d+)") + r"\.")
        found = {match[match.lastindex] for key in shapes if (match := rule.match(key))}
        if not found:
            self.refuse([f"{pattern} is missing"])
        return len(found)


@dataclass(frozen=True)
class Tensor:
    """One of our tensors.

    Attributes:
        shape: what it has here.
        sources: key -> shape of the published tensors, or of `ZEROS`, whose rows it is made of.
        arrange: brings the rows into our order.
    """

    shape: tuple[int, ...]
    sources: dict[str, tuple[int, ...]]
    arrange: Callable[[torch.Tensor], torch.Tensor]

    @property
    def keys(self) -> list[str]:
        """The published tensors."""
        return [key for key in self.sources if key != ZEROS]

    def build(self, published: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Put the published tensors together."""
        first = published[self.keys[0]]
        parts = [
            published[key] if key != ZEROS else torch.zeros(shape, dtype=first.dtype)
            for key, shape in self.sources.items()
        ]
        # a copy: what several tensors share would otherwise be refused when it is saved
        return self.arrange((torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(self.shape)).clone()


def plan_with(
    layout: Layout, published: Mapping[str, torch.Tensor], params: Mapping, preset: str | None = None
) -> tuple[OneLLMConfig, dict[str, Tensor]]:
    """Decide what every one of our tensors is made of.

    Args:
        layout: of the checkpoint.
        published: the checkpoint's tensors, of which only shapes and dtypes are looked at, unless our two are tied and
            the checkpoint has both.
        params: as for `Layout.read_config`.
        preset: as for `Layout.read_config`.

    Returns:
        The configuration, and our tensors by name. Those that are tied to another one are left out, unless the
        checkpoint has something else for them.

    Raises:
        ModelError: keys are missing, too many or misshapen; the message names them.
    """
    shapes = {key: tuple(value.shape) for key, value in published.items()}
    config = layout.read_config(shapes, params, preset)
    config.dtype = mode(value.dtype for value in published.values())
    with torch.device("meta"):
        model = OneLLMForConditionalGeneration(config)
    tied = {
        name: source for name, source in model.all_tied_weights_keys.items() if _same(layout, published, name, source)
    }
    tensors = {}
    for name, value in model.state_dict().items():
        if name in tied:
            continue
        arrange = functools.partial(layout.arrange, name, config=config)
        sources = _sources(layout, name, tuple(value.shape), shapes)
        tensors[name] = Tensor(tuple(value.shape), sources, arrange)
    expected = {key: shape for tensor in tensors.values() for key, shape in tensor.sources.items() if key != ZEROS}
    copies = {key for name in tied for key in layout.keys_of(name)}
    dropped = {
        key for key in shapes if key in copies or any(fnmatch(key, pattern) for pattern in (*COMPUTED, *layout.dropped))
    }
    layout.refuse(
        [f"{key} is missing" for key in expected if key not in shapes]
        + [f"{key} is not known" for key in shapes if key not in expected and key not in dropped]
        + [
            f"{key} is {list(shapes[key])} instead of {list(shape)}"
            for key, shape in expected.items()
            if shapes.get(key, shape) != shape
        ]
    )
    return config, tensors


def _same(layout: Layout, published: Mapping[str, torch.Tensor], name: str, source: str) -> bool:
    """Whether a checkpoint has nothing else for one of our tensors than for the one it is tied to."""
    mine, other = (published.get(layout.keys_of(one)[0]) for one in (name, source))
    if mine is None or other is None or mine.is_meta:
        return True
    return mine.shape == other.shape and torch.equal(mine, other)


def _sources(layout: Layout, name: str, shape: tuple[int, ...], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Name the published tensors that one of ours is made of, with their shapes.

    Each has the same share of the rows, unless those that are there add up with other shares.
    """
    keys = layout.keys_of(name)
    if len(keys) == 1:
        return {keys[0]: layout.shape(name, shape)}
    rows = [shapes[key][0] if shapes.get(key) else 0 for key in keys]
    if not all(rows) or sum(rows) != shape[0]:
        rows = [shape[0] // len(keys)] * len(keys)
    return {key: layout.shape(name, (share, *shape[1:])) for key, share in zip(keys, rows, strict=True)}
