"""The part of the model before the LLM: files' tensors in, soft words out, and the losses that need no LLM."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from onellm.errors import ModelError
from onellm.model.config import pieces
from onellm.model.encoder import UniversalEncoder
from onellm.model.merging import Windows
from onellm.model.offload import live
from onellm.model.projectors import Instruction
from onellm.model.tokenizers import StemTokens

FRAMES_ON_CPU = 4  # at once: more would leave the caches, and take 1.4 times as long; a GPU takes all in one batch

Media = dict[str, Sequence[torch.Tensor | Windows]]
"""kind -> one tensor a file, or those of its windows, in the order in which their placeholders stand in `input_ids`."""


def _pad(texts: Sequence[torch.Tensor]) -> Instruction:
    """Join token ids [L] of several texts, with their mask."""
    mask = pad_sequence([torch.ones_like(ids) for ids in texts], batch_first=True)
    return pad_sequence(list(texts), batch_first=True), mask


class Reading:
    """Methods of `OneLLMForConditionalGeneration` for what its files become."""

    def _check_lengths(self) -> None:
        """Make sure that a prompt gets as many placeholders as there will be soft words.

        Raises:
            ModelError: the configuration says another number.
        """
        for kind in self.config.modalities:
            if isinstance(self.tokenizer_for(kind), StemTokens):  # which makes a few tokens of any number of frames
                continue
            frames = pieces(kind, self.config.modalities[kind])
            encoder = self.encoder_for(kind)
            if encoder.features != self.encoder.features:
                raise ModelError(
                    f"The encoder of kind {kind} gives features {encoder.features} wide and that of the others "
                    f"{self.encoder.features}; set its 'output' so that they are the same."
                )
            features = encoder.count(self.tokenizer_for(kind).count, frames)
            length = self.projector.count(features) + len(self.config.tags)
            if self.config.length_of(kind) != length:
                raise ModelError(
                    f"A file of kind {kind} becomes {length} soft words, but the configuration says "
                    f"{self.config.length_of(kind)}; set its 'length' to {length}."
                )

    def tokenizer_for(self, kind: str) -> nn.Module:
        """Return the tokenizer of a kind, its own or the one it shares."""
        return self.tokenizers[self.config.modalities[kind]["tokenizer"].get("share", kind)]

    def encoder_for(self, kind: str) -> UniversalEncoder:
        """Return the encoder of a kind: its own, that of the kind whose tokenizer it shares, or the common one."""
        shared = self.config.modalities[kind]["tokenizer"].get("share", kind)
        return self.encoders[shared] if shared in self.encoders else self.encoder

    def encode(self, kind: str, extracted: torch.Tensor) -> torch.Tensor:
        """Encode one kind's batch.

        Args:
            kind: the kind.
            extracted: [B, ...], what the kind's tokenizer extracted from the files' tensors.

        Returns:
            [B, N, D] features; those of frames that the tokenizer keeps apart are joined.
        """
        tokenizer, encoder = self.tokenizer_for(kind), self.encoder_for(kind)
        tokens, positions = tokenizer(self._to_encoder(extracted)), live(tokenizer, "positions")
        if tokens.dim() == 3:
            return encoder(tokens, positions)
        frames = tokens.flatten(0, 1)
        groups = frames.split(FRAMES_ON_CPU) if frames.is_cpu else [frames]
        features = torch.cat([encoder(group, positions) for group in groups])
        return encoder.join(features.unflatten(0, tokens.shape[:2]))

    def project(self, kind: str, features: torch.Tensor, instruction: Instruction | None = None) -> torch.Tensor:
        """Project [B, N, D] features to [B, length, D_llm]: soft words, and the tags around them."""
        return self.projector(features, kind, self.anchor_words(), instruction)

    def anchor_words(self) -> torch.Tensor | None:
        """Return [size, D_llm], what the LLM reads for the words of the anchor's vocabulary; None without an anchor."""
        anchor = self.projector.anchor
        return None if anchor is None else self.get_input_embeddings()(anchor.token_ids)

    def _to_encoder(self, values: torch.Tensor) -> torch.Tensor:
        """Bring values to the encoder's precision and, unless it is offloaded, its device."""
        like = self.encoder.class_embedding
        return values.to(like.dtype) if like.is_meta else values.to(like)

    def soft_words(
        self,
        kind: str,
        values: Sequence[torch.Tensor],
        extracted: bool = False,
        instructions: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Turn files into what the LLM reads.

        Args:
            kind: the kind of all of them.
            values: one tensor a file; tensors of one shape run as one batch.
            extracted: the tensors are what the kind's tokenizer extracted (training keeps these).
            instructions: for a projector that reads the question, its token ids [L] for each file.

        Returns:
            [files, length, D_llm].
        """

        def project(features: torch.Tensor, indices: list[int]) -> torch.Tensor:
            asked = None
            if instructions is not None:
                asked = _pad([instructions[index].to(features.device) for index in indices])
            return self.project(kind, features, asked)

        return self._by_shape(kind, values, extracted, project)

    def _by_shape(self, kind: str, values: Sequence[torch.Tensor], extracted: bool, project: Callable) -> torch.Tensor:
        """Encode and project files of one kind; those whose tensors are of one shape run as one batch."""
        groups: dict[tuple, list[int]] = {}
        for index, value in enumerate(values):
            groups.setdefault(tuple(value.shape), []).append(index)
        words: list[Any] = [None] * len(values)
        for indices in groups.values():
            batch = self._to_encoder(torch.stack([values[index] for index in indices]))
            if not extracted:
                batch = self.tokenizer_for(kind).extract(batch)
            for index, word in zip(indices, project(self.encode(kind, batch), indices), strict=True):
                words[index] = word
        return torch.stack(words)

    def file_words(
        self,
        kind: str,
        values: Sequence[torch.Tensor | Windows],
        extracted: bool = False,
        instructions: Sequence[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """Turn files into what the LLM reads, each of its own length; for the arguments see `soft_words`.

        Returns:
            [length, D_llm] for each file; the words of one that is read in windows are merged, between one pair of
            tags.
        """
        if not any(isinstance(value, Windows) for value in values):
            return list(self.soft_words(kind, values, extracted, instructions))
        made: list[torch.Tensor] = []
        for index, value in enumerate(values):
            asked = None if instructions is None else instructions[index : index + 1]
            if not isinstance(value, Windows):
                made += self.soft_words(kind, [value], extracted, asked)
                continue
            read: list[torch.Tensor] = []
            for _, alike in groupby(value.tensors, key=lambda tensor: tensor.shape):
                batch = list(alike)
                read += self.soft_words(kind, batch, extracted, None if asked is None else [*asked] * len(batch))
            start, end = (tag in self.projector.tags for tag in ("start", "end"))
            inner = torch.stack([words[start : len(words) - end] for words in read])
            merged, _ = self.merging(inner, value.kept)
            made.append(torch.cat([read[0][:start], merged.flatten(0, 1), read[0][len(read[0]) - end :]]))
        return made

    def anchor_loss(self, media: Media, word_labels: torch.Tensor, extracted: bool = False) -> torch.Tensor:
        """Compare the soft words of files with the words of their names; the LLM does not run.

        Args:
            media: files of one kind.
            word_labels: [B, M] places in the anchor's vocabulary.
            extracted: as for `soft_words`.

        Returns:
            The mean cross-entropy, a scalar.
        """
        ((kind, values),) = media.items()
        words = self._by_shape(kind, values, extracted, lambda features, _: self.projector.words(features, kind))
        return self.projector.anchor.loss(words, self.anchor_words(), word_labels)

    def contrast_loss(self, media: Media, texts: Sequence[torch.Tensor], extracted: bool = False) -> torch.Tensor:
        """Compare files with texts, as a querying transformer learns to before any LLM; the LLM does not run.

        Args:
            media: files of one kind.
            texts: token ids [L] of the projector's own tokenizer, one text a file.
            extracted: as for `soft_words`.

        Returns:
            The loss, a scalar, see `projectors.contrast.Contrast`.
        """
        ((kind, values),) = media.items()
        features = self._by_shape(kind, values, extracted, lambda features, _: features)
        return self.projector.contrast_loss(features, kind, _pad(texts))

    def embed(
        self,
        input_ids: torch.Tensor,
        media: Media | None = None,
        extracted: bool = False,
        known: int = 0,
        words: bool = False,
        instructions: Media | None = None,
    ) -> torch.Tensor:
        """Embed a prompt and put the files' soft words in their places.

        Args:
            input_ids: [B, L]; a file of a kind is `config.length_of(kind)` placeholders of the kind's `token_id`.
            media: the files' tensors.
            extracted: as for `soft_words`.
            known: positions at the start whose embeddings nobody will read; files that lie there are not encoded.
            words: the tensors are soft words already, one [length, D_llm] of `soft_words` a file.
            instructions: kind -> token ids [L] of the question about each file, see `soft_words`.

        Returns:
            [B, L, D_llm].

        Raises:
            ValueError: placeholders and files do not match in number.
        """
        embeds = self.embed_tokens(input_ids)
        for kind, settings in self.config.modalities.items():
            places = input_ids == settings["token_id"]
            values = (media or {}).get(kind)
            values = [] if values is None else values
            one = self.config.length_of(kind)
            tags = len(self.config.tags)
            lengths = torch.tensor(
                [
                    len(value) if words else value.kept * (one - tags) + tags if isinstance(value, Windows) else one
                    for value in values
                ],
                dtype=torch.long,
            )
            if int(places.sum()) != int(lengths.sum()):
                raise ValueError(
                    f"The prompt holds {int(places.sum())} placeholders of kind {kind}, but {len(values)} file(s) "
                    f"of it need {int(lengths.sum())}; build both with OneLLMProcessor."
                )
            asked = (instructions or {}).get(kind)
            if known and len(values):
                last = places.nonzero()[lengths.cumsum(0).to(places.device) - 1, 1]
                fresh = last >= known
                places[places.clone()] = fresh.repeat_interleave(lengths.to(places.device))
                wanted = fresh.nonzero()[:, 0].tolist()
                values = [values[index] for index in wanted]
                asked = asked and [asked[index] for index in wanted]
            if len(values):
                made = values if words else self.file_words(kind, values, extracted, asked)
                scattered = torch.cat(list(made)).to(embeds)
                embeds = embeds.masked_scatter(places.unsqueeze(-1).to(embeds.device), scattered)
        return embeds
