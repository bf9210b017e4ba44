"""Captioned files the other way round: the caption is asked for, and the file is the answer."""

from train.data.example import DataError, Example, Examples, files_of


class Requests:
    """Examples whose files are answers.

    Args:
        examples: captioned files, one a caption.
        request: the question, with {} for the caption.
    """

    def __init__(self, examples: Examples, request: str):
        self.examples, self.request = examples, request
        self.modalities, self.blocks = examples.modalities, examples.blocks

    def read(self, block: int, index: int) -> Example:
        """Read one example; its answer's file has the caption as its `prompt`.

        Raises:
            OneLLMError: the example is bad, or holds several files.
        """
        example = self.examples.read(block, index)
        files = files_of(example.messages)
        if len(files) != 1:
            raise DataError(f"{example.key}: it has {len(files)} files; expected one that is to be made.")
        caption = next(part["text"] for part in example.messages[-1]["content"] if part["type"] == "text")
        asked = {"type": "text", "text": self.request.replace("{}", caption)}
        answer = {**files[0], "prompt": caption}
        messages = [{"role": "user", "content": [asked]}, {"role": "assistant", "content": [answer]}]
        return Example(example.key, messages)

    def length(self, block: int, index: int) -> int:
        """Return the characters of its text."""
        return self.examples.length(block, index)
