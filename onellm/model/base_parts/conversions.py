"""What is made of a part's files: a folder with `model.safetensors`, and what transformers reads beside it.

Every function takes the first file of the part, the others lying beside it, and the folder to fill. It runs as
`python -m onellm.model.base_parts.conversions FUNCTION SOURCE OUT` in a process of its own (`fetching`), whose memory
goes back when it ends.
"""

import importlib
import json
import os
import struct
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BLOCK_ROWS = 8192  # of a quantised matrix are unpacked at once; whole, Qwen's vocabulary would take 4 GB
SAME_TENSOR = 0.15  # relative difference below which two tensors are two quantisations of one


def llm(source: Path, out: Path) -> None:
    """Dequantise a GGUF file into a plain transformers folder, weights in float16."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    llm = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float16,
        trust_remote_code=False,
    )
    if hasattr(llm.config, "quantization_config"):  # save_pretrained refuses while it is set
        del llm.config.quantization_config
    llm.save_pretrained(out)
    _save_tokenizer(source, out)


def qwen2(source: Path, out: Path) -> None:
    """Dequantise a GGUF file of Qwen2's architecture, tensor by tensor, weights in bfloat16.

    The file holds the vocabulary's matrix twice, as embedding and as head, quantised differently; the model that was
    published has one. The finer of the two, the head, is taken for both.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoConfig, GenerationConfig

    stored = {tensor.name: tensor for tensor in GGUFReader(source).tensors}
    tied = "output.weight" not in stored or _same(stored["output.weight"], stored["token_embd.weight"])
    if tied and "output.weight" in stored:
        stored["token_embd.weight"] = stored.pop("output.weight")
    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    config.tie_word_embeddings, config.dtype, config.architectures = tied, torch.bfloat16, ["Qwen2ForCausalLM"]
    config.name_or_path = ""
    config.save_pretrained(out)
    GenerationConfig.from_model_config(config).save_pretrained(out)
    _write_safetensors(out / "model.safetensors", {_qwen2_name(name): value for name, value in stored.items()})
    _save_tokenizer(source, out)


def _qwen2_name(name: str) -> str:
    """Translate llama.cpp's name of a tensor into transformers'."""
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "output_norm.weight": "model.norm.weight",
    }
    inner = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    if name in whole:
        return whole[name]
    _, layer, module, kind = name.split(".")
    return f"model.layers.{layer}.{inner[module]}.{kind}"


def _blocks(tensor: Any) -> Iterator["torch.Tensor"]:
    """Unpack a tensor of a GGUF file, some rows at a time, into float32."""
    import numpy as np
    import torch
    from gguf.quants import dequantize

    for first in range(0, len(tensor.data), BLOCK_ROWS):
        rows = dequantize(np.asarray(tensor.data[first : first + BLOCK_ROWS]), tensor.tensor_type)
        yield torch.from_numpy(np.array(rows, dtype=np.float32))


def _same(one: Any, other: Any) -> bool:
    """Tell whether two tensors of a GGUF file are two quantisations of one."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    difference = norm = 0.0
    for rows, others in zip(_blocks(one), _blocks(other), strict=True):
        difference += float((rows - others).square().sum())
        norm += float(rows.square().sum())
    return difference < norm * SAME_TENSOR**2


def _write_safetensors(path: Path, tensors: dict[str, Any]) -> None:
    """Write tensors of a GGUF file in bfloat16, one block in memory at a time; safetensors' own writer wants all."""
    import torch

    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        shape = [int(size) for size in reversed(tensor.shape)]  # llama.cpp counts dimensions from the innermost
        begin, end = end, end + 2 * int(tensor.n_elements)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            for rows in _blocks(tensor):
                file.write(rows.to(torch.bfloat16).view(torch.uint8).numpy().tobytes())


def whisper(source: Path, out: Path) -> None:
    """Turn Whisper in CTranslate2's format into a transformers folder; weights stay in float16.

    Source: the format is that of `ModelSpec.save` in CTranslate2's specs/model_spec.py, version 6.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor

    stored = {name: torch.from_numpy(value) for name, value in _read_ctranslate2(source).items()}
    tensors = {}
    for name, value in stored.items():
        if value.ndim:
            tensors |= _whisper_tensors(name, value)
    save_file({name: value.contiguous() for name, value in tensors.items()}, out / "model.safetensors")
    said = json.loads((source.parent / "config.json").read_text(encoding="utf-8"))
    tokens = {item["content"]: item["id"] for item in _added_tokens(source.parent / "tokenizer.json")}
    layers = {name.split("/")[1] for name in stored if name.startswith("encoder/layer_") and name.count("/") > 2}
    special = {"decoder_start_token_id": tokens["<|startoftranscript|>"], "eos_token_id": tokens["<|endoftext|>"]}
    special |= {"bos_token_id": tokens["<|endoftext|>"], "pad_token_id": tokens["<|endoftext|>"]}
    vocabulary, width = stored["decoder/embeddings/weight"].shape
    WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=len(layers),
        decoder_layers=len(layers),
        encoder_attention_heads=int(stored["encoder/num_heads"]),
        decoder_attention_heads=int(stored["decoder/num_heads"]),
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        num_mel_bins=stored["encoder/conv1/weight"].shape[1],
        max_source_positions=len(stored["encoder/position_encodings/encodings"]),
        max_target_positions=len(stored["decoder/position_encodings/encodings"]),
        dtype="float16",
        architectures=["WhisperForConditionalGeneration"],
        **special,
    ).save_pretrained(out)
    languages = {name: number for name, number in tokens.items() if number in said["lang_ids"]}
    GenerationConfig(
        is_multilingual=True,
        lang_to_id=languages,
        task_to_id={"transcribe": tokens["<|transcribe|>"], "translate": tokens["<|translate|>"]},
        no_timestamps_token_id=tokens["<|notimestamps|>"],
        suppress_tokens=said["suppress_ids"],
        begin_suppress_tokens=said["suppress_ids_begin"],
        max_length=448,
        **special,
    ).save_pretrained(out)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(out)
    (out / "tokenizer.json").write_bytes((source.parent / "tokenizer.json").read_bytes())
    named = {"tokenizer_class": "WhisperTokenizer", "model_max_length": 1024}
    named |= {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "pad", "unk")}
    (out / "tokenizer_config.json").write_text(json.dumps(named, indent=1))


def _added_tokens(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["added_tokens"]


def _read_ctranslate2(path: Path) -> dict[str, Any]:
    """Read the arrays of a model in CTranslate2's binary format."""
    import numpy as np

    dtypes = (np.float32, np.int8, np.int16, np.int32, np.float16)
    arrays, data = {}, path.read_bytes()
    place = 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal place
        length = number("H")
        place += length
        return data[place - length : place - 1].decode()  # a zero ends it

    version, spec, _ = number("I"), text(), number("I")
    if (version, spec) != (6, "WhisperSpec"):
        raise ValueError(f"{path.name} is {spec} in version {version}; expected is WhisperSpec in version 6")
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype, size = dtypes[number("B")], number("I")
        arrays[name] = np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, place).reshape(shape).copy()
        place += size
    return arrays


def _whisper_tensors(name: str, value: "torch.Tensor") -> "dict[str, torch.Tensor]":
    """Translate a tensor of CTranslate2: its attention keeps queries, keys and values in one matrix."""
    whole = {
        "decoder/embeddings/weight": "decoder.embed_tokens.weight",
        "decoder/position_encodings/encodings": "decoder.embed_positions.weight",
        "encoder/position_encodings/encodings": "encoder.embed_positions.weight",
    }
    if name in whole:
        return {f"model.{whole[name]}": value}
    *path, module, kind = name.split("/")
    kind = {"gamma": "weight", "beta": "bias"}.get(kind, kind)
    if len(path) == 1:  # the two convolutions, and the norm at the end of either half
        return {f"model.{path[0]}.{module}.{kind}": value}
    half, layer, block = path[0], path[1][6:], path[2]
    inside = f"model.{half}.layers.{layer}"
    if block == "ffn":
        inner = {"layer_norm": "final_layer_norm", "linear_0": "fc1", "linear_1": "fc2"}[module]
        return {f"{inside}.{inner}.{kind}": value}
    attention = {"self_attention": "self_attn", "attention": "encoder_attn"}[block]
    if module == "layer_norm":
        return {f"{inside}.{attention}_layer_norm.{kind}": value}
    fused = {
        "self_attention": {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)},
        "attention": {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)},
    }[block][module]
    parts = zip(fused, value.chunk(len(fused)), strict=True)
    return {  # Whisper's keys have no bias; CTranslate2 fills it with zeros
        f"{inside}.{attention}.{inner}.{kind}": part for inner, part in parts if (inner, kind) != ("k_proj", "bias")
    }


def _save_tokenizer(source: Path, out: Path) -> None:
    """Save the tokenizer and chat template that a GGUF file holds."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    tokenizer.save_pretrained(out)


def efficientnet(source: Path, out: Path) -> None:
    """Rename the tensors to timm's names; both list them in the same order."""
    import torch
    from safetensors.torch import save_file

    from onellm.model.backbones import EfficientNetLite2

    values = torch.load(source, map_location="cpu", weights_only=True).values()
    names = EfficientNetLite2().state_dict()
    tensors = {name: value.contiguous() for name, value in zip(names, values, strict=True)}
    save_file(tensors, out / "model.safetensors")


def yamnet(source: Path, out: Path) -> None:
    """Take the float weights out of the ONNX graph, layer by layer."""
    import onnx
    import torch
    from safetensors.torch import save_file

    from onellm.model.backbones import YamNet

    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(source).extractall(folder)
        graph = onnx.load(next(Path(folder).rglob("*.onnx"))).graph
    tensors = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    values = [tensors[name.removesuffix("_qdq")] for node in layers for name in node.input[1:3]]
    names = YamNet().state_dict()
    save_file(
        {name: torch.tensor(value) for name, value in zip(names, values, strict=True)},
        out / "model.safetensors",
    )


def folder(source: Path, out: Path) -> None:
    """Take the files as they are."""
    for path in source.parent.iterdir():
        (out / path.name).write_bytes(path.read_bytes())


def _function(name: str) -> Callable[[Path, Path], None]:
    """Find a function of this file, or "module:function" of another."""
    module, _, function = name.rpartition(":")
    return getattr(importlib.import_module(module or __name__), function)


def _end_with_the_parent() -> None:
    """End this process when the other end of its standard input is closed: its parent is gone."""
    while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when Python ends
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _function(sys.argv[1])(Path(sys.argv[2]), Path(sys.argv[3]))
