"""Writes small real training data for the tests."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from onellm.errors import OneLLMError
from train.data.formats.sources import open_examples
from train.recipe import Source, build


def source(**values):
    values = {k: str(v) if k in ("path", "root") else v for k, v in values.items()}
    return build(Source, {"kind": "image", "source": "captions"} | values)


def opened(**values):
    return open_examples(source(**values))


def png(path, level=0, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 100, 50)).save(path)
    return path


def captioned_pictures(folder, rows, broken):
    """Write rows (caption, tab, file) as a table, and a picture for each, one of them broken; return the table."""
    for index in range(len(rows)):
        png(folder / f"{index}.png", 20 * index)
    (folder / f"{broken}.png").write_bytes(b"broken")
    (folder / "a.tsv").write_text("\n".join(rows))
    return folder / "a.tsv"


def png_bytes(level=0):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (level, 100, 50)).save(file, "PNG")
    return file.getvalue()


def wav(path, seconds=0.5):
    import soundfile

    soundfile.write(path, np.sin(np.arange(int(16000 * seconds)) / 10).astype(np.float32) / 2, 16000)
    return path


def tar(path, members):
    """Write name -> bytes, text or JSON as a tar."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            content = content if isinstance(content, bytes | str) else json.dumps(content)
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def talk(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def everything(examples):
    """Read all examples: messages of the good ones by number, reasons of the bad ones."""
    good, bad, number = {}, {}, 0
    for block, count in enumerate(examples.blocks):
        for index in range(count):
            try:
                good[number] = examples.read(block, index)
            except OneLLMError as error:
                bad[number] = str(error)
                assert "\n" not in bad[number] and bad[number].endswith(".") and "expected" in bad[number]
            number += 1
    return good, bad


def texts(example):
    return [part["text"] for message in example.messages for part in message["content"] if part["type"] == "text"]


def files(example):
    return [part for message in example.messages for part in message["content"] if part["type"] != "text"]


def refused(*parts, **values):
    """Check that a source is refused with one sentence that holds the given parts."""
    with pytest.raises(OneLLMError) as caught:
        opened(**values)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    for part in parts:
        assert part in text, text
