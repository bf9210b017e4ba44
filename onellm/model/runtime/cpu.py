"""The fastest correct way to run a model on a CPU, in float32 or in int8, once it is loaded.

`optimise` replaces layers in place. Linears keep their weights packed for oneDNN (float32, the same numbers, about
twice as fast as the plain layer on the machines measured) or in 8 bits with a scale a row, activations being quantised
as they come, token by token. Decoders like LLaMA's and Qwen2's get a block that fuses what transformers keeps apart.
What is optimised can neither train nor be saved. The choice was made by measurement: docs/performance.md.
"""

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import nn

from onellm.model.adapters import RoutedAdapter
from onellm.model.encoder import Attention
from onellm.model.runtime import kernels
from onellm.utils.progress import Progress, Report

SMALL = 65_536  # weights below which packing a linear costs more than it gains
ROWS_AT_ONCE = 4096  # of a weight while it is quantised: a large head in float32 would need more than the model
WIDE = 512  # width of an encoder from which 8-bit products pay


class PackedLinear(nn.Module):
    """A float32 linear layer whose weight lies in oneDNN's order."""

    weight = None  # some of transformers' layers look at the type of their linears' weights

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = kernels.pack(weight.detach().float())
        self.packed_bytes = 4 * weight.numel()
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        return kernels.linear(x, self.packed, self.bias)


class Int8Linear(nn.Module):
    """A linear layer of the LLM: 8-bit weights with a scale a row, which halve, and halve again, what a token reads.

    Activations are bfloat16, whose products the kernel adds up in float32: in 8 bits they would cost the LLM one
    answer in ten (docs/performance.md).
    """

    weight = None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed, self.scale = _to_8_bits(weight)
        self.packed_bytes = weight.numel() + self.scale.nbytes
        self.ones = torch.ones(len(weight), dtype=torch.bfloat16)  # the kernel's own scales are only bfloat16
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        rows = x.reshape(-1, self.in_features).bfloat16()
        y = kernels.int8_linear(rows, self.packed, self.ones) * self.scale
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y.add_(self.bias)


class HalfEmbedding(nn.Module):
    """An embedding whose table stays in 16 bits, and in nobody's list of parameters, so that nothing widens it."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.table = embedding.weight.detach().clone()  # the file it may be mapped from can go
        self.packed_bytes = self.table.nbytes

    @property
    def weight(self) -> torch.Tensor:
        """The table [size, D]; it cannot train."""
        return self.table

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Look up [...] ids: [..., D] float32."""
        return F.embedding(input_ids, self.table).float()


class Int8ProductLinear(nn.Module):
    """A large linear layer of the encoder: weights and activations in 8 bits, a scale a row and a scale a token."""

    weight = None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        quantised, self.scale = _to_8_bits(weight)
        self.packed = quantised.T
        self.packed_bytes = weight.numel() + self.scale.nbytes
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., in] to [..., out]."""
        rows = x.reshape(-1, self.in_features)
        size = torch.linalg.vector_norm(rows, torch.inf, dim=-1, keepdim=True).clamp_min_(1e-12) / 127
        y = kernels.int8_product((rows / size).round_().to(torch.int8), self.packed) * size
        y = y.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, y, self.scale, out=y)
        return y.view(*x.shape[:-1], self.out_features)


def _to_8_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a weight [out, in]: int8 of the same shape, and a float32 scale a row."""
    weight = weight.detach()
    quantised = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty(len(weight))
    for start in range(0, len(weight), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        part = weight[rows].to(torch.float32, copy=True)
        scale[rows] = part.abs().amax(dim=1).clamp_min(1e-12) / 127
        quantised[rows] = part.div_(scale[rows, None]).round_().to(torch.int8)
    return quantised, scale


class PackedAttention(Attention):
    """The encoder's attention with faster linears."""

    def __init__(self, attention: Attention, linear: type[nn.Module]):
        nn.Module.__init__(self)  # none of torch's parameters
        self.num_heads = attention.num_heads
        self.bias_k, self.bias_v = attention.bias_k, attention.bias_v
        self.qkv = linear(attention.in_proj_weight, attention.in_proj_bias)
        self.out_proj = linear(attention.out_proj.weight, attention.out_proj.bias)

    def project_in(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, N, D] to [B, N, 3 * D]: queries, keys, values."""
        return self.qkv(x)


class LowRank:
    """The LoRA layers of the linears that one fused linear stands for; the model switches them as before."""

    def __init__(self, modules: list[nn.Module]):
        self.tuner = next((module for module in modules if hasattr(module, "lora_A")), None)
        down, up = [], []
        for module in modules:
            if hasattr(module, "lora_A"):
                (name,) = module.active_adapters
                down.append(module.lora_A[name].weight)
                up.append(module.lora_B[name].weight * module.scaling[name])
            else:
                up.append(module.weight.new_zeros(module.out_features, 0))
        if down:
            self.down = torch.cat(down).detach().float()  # [ranks, in]
            self.up = torch.block_diag(*up).detach().float()  # [out, ranks]

    def add(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add the low-rank part of x [..., in] to y [..., out], where it is on."""
        if self.tuner is None or self.tuner.disable_adapters:
            return y
        low = F.linear(x, self.down)
        (switch,) = self.tuner.lora_A.values()
        return y + F.linear(low if switch.row_mask is None else low * switch.row_mask, self.up)


class Rotary(nn.Module):
    """Rotary positions as complex numbers, for heads whose halves were interleaved into pairs."""

    def __init__(self, rotary: nn.Module):
        super().__init__()
        self.rotary = rotary

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Return [B, L, 1, head_dim / 2] complex64."""
        cos, sin = self.rotary(x, position_ids)
        half = cos.shape[-1] // 2
        return torch.complex(cos[..., :half], sin[..., :half]).unsqueeze(2)


class DecoderLayer(nn.Module):
    """A decoder layer of LLaMA or Qwen2 with fused linears, called as transformers calls its own."""

    def __init__(self, layer: nn.Module, linear: type[nn.Module]):
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.layer_idx, self.head_dim = attention.layer_idx, attention.head_dim
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.heads, self.heads_kv, _ = (part.out_features // self.head_dim for part in parts)
        pairs = self._pairs(base(parts[0]).weight.device)
        weight, bias = (
            self._joined([getattr(base(part), name) for part in parts], pairs) for name in ("weight", "bias")
        )
        self.qkv, self.qkv_lora = linear(weight, bias), LowRank(parts)
        if self.qkv_lora.tuner is not None:
            turned = self.heads + self.heads_kv
            up = self.qkv_lora.up.unflatten(0, (-1, self.head_dim))
            self.qkv_lora.up = torch.cat([up[:turned, pairs], up[turned:]]).flatten(0, 1)
        self.out, self.out_lora = linear(base(attention.o_proj).weight), LowRank([attention.o_proj])
        self.gate_up = linear(torch.cat([base(mlp.gate_proj).weight, base(mlp.up_proj).weight]).detach())
        self.gate_up_lora = LowRank([mlp.gate_proj, mlp.up_proj])
        self.down, self.down_lora = linear(base(mlp.down_proj).weight), LowRank([mlp.down_proj])
        for part in (*parts, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj):
            if part is not base(part):
                part.base_layer = None  # the switch outlives the weights
        self.attention_norm = layer.input_layernorm.weight
        self.routed = layer.input_layernorm if layer.input_layernorm._forward_hooks else None  # by `RoutedAdapters`
        self.ffn_norm = layer.post_attention_layernorm.weight
        self.eps = layer.input_layernorm.variance_epsilon

    def _joined(self, tensors: list[torch.Tensor | None], pairs: torch.Tensor) -> torch.Tensor | None:
        """Join what queries, keys and values have of one kind, [out, ...] each, the heads of the first two in pairs."""
        if tensors[0] is None:
            return None
        query, key, value = (tensor.detach() for tensor in tensors)
        turned = [tensor.unflatten(0, (-1, self.head_dim))[:, pairs].flatten(0, 1) for tensor in (query, key)]
        return torch.cat([*turned, value])

    def _pairs(self, device: torch.device) -> torch.Tensor:
        half = self.head_dim // 2
        return torch.arange(self.head_dim, device=device).view(2, half).T.flatten()

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_embeddings: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Map [B, L, D] to [B, L, D]."""
        batch, length, width = hidden_states.shape
        if self.routed is None:
            x = F.rms_norm(hidden_states, (width,), self.attention_norm, self.eps)
        else:
            x = self.routed(hidden_states)
        qkv = self.qkv_lora.add(self.qkv(x), x).view(batch, length, -1, self.head_dim)
        turned = self.heads + self.heads_kv
        pairs = torch.view_as_complex(qkv[:, :, :turned].unflatten(-1, (-1, 2)))
        rotated = torch.view_as_real(pairs * position_embeddings).flatten(-2)
        query = rotated[:, :, : self.heads].transpose(1, 2)
        key, value = rotated[:, :, self.heads :].transpose(1, 2), qkv[:, :, turned:].transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        causal = attention_mask is None and length > 1
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, is_causal=causal, enable_gqa=self.heads != self.heads_kv
        )
        attended = attended.transpose(1, 2).reshape(batch, length, -1)
        x = self.out_lora.add(self.out(attended), attended).add_(hidden_states)
        normed = F.rms_norm(x, (width,), self.ffn_norm, self.eps)
        gate, up = self.gate_up_lora.add(self.gate_up(normed), normed).chunk(2, dim=-1)
        hidden = F.silu(gate).mul_(up)
        return self.down_lora.add(self.down(hidden), hidden).add_(x)


def base(module: nn.Module) -> nn.Module:
    """Return the linear below a LoRA layer, or the linear itself."""
    return getattr(module, "base_layer", module)


@torch.no_grad()
def optimise(model: nn.Module, int8: bool = False, report: Report | None = None) -> nn.Module:
    """Replace the layers of a loaded model by faster ones, in place.

    Args:
        model: a `OneLLMForConditionalGeneration` on the CPU, in any precision; what is left of it becomes float32.
        int8: keep the LLM's weights in 8 bits, and multiply in 8 bits where the encoder is large.
        report: called for every layer of the LLM.

    Returns:
        The same model, for inference only.
    """
    model.requires_grad_(False)
    linear = Int8Linear if int8 else PackedLinear
    if not hasattr(model, "language_model"):  # its layers have no room of their own
        _replace(model, linear)
        return model.float()
    if model.projector is not None:
        model.projector.fold()
    llm = model.language_model
    if _is_fusible(llm.config):
        count = len(llm.model.layers)
        for index, layer in enumerate(llm.model.layers):
            if report is not None:
                report(Progress("optimise", "", index, count, "layers"))
            llm.model.layers[index] = DecoderLayer(layer, linear)
        llm.model.rotary_emb = Rotary(llm.model.rotary_emb)
    _replace(llm, linear)
    embedding = model.get_input_embeddings()
    if int8 and type(embedding) is nn.Embedding and embedding.weight.element_size() == 2:
        model.set_input_embeddings(HalfEmbedding(embedding))
    model.extend_head()  # which is another layer now
    for part in (model.tokenizers, model.encoder, model.encoders, model.projector):  # the backbones are convolutions
        if part is None:
            continue
        _replace(part, Int8ProductLinear if int8 and model.config.encoder.get("width", 0) >= WIDE else PackedLinear)
    return model.float()


def _is_fusible(config: Any) -> bool:
    """Whether `DecoderLayer` computes what transformers' own layers of this model do."""
    if config.model_type == "qwen2":
        return config.hidden_act == "silu" and not config.use_sliding_window
    return config.model_type == "llama" and config.hidden_act == "silu" and not config.attention_bias | config.mlp_bias


def _replace(module: nn.Module, linear: type[nn.Module]) -> None:
    for name, child in module.named_children():
        if name.startswith("lora_") or isinstance(child, RoutedAdapter):  # they are asked for the type of their weights
            continue
        if type(child) is nn.Linear and child.in_features * child.out_features >= SMALL:
            setattr(module, name, linear(child.weight, child.bias))
        elif isinstance(child, Attention):
            setattr(module, name, PackedAttention(child, linear))
        else:
            if isinstance(child, nn.Sequential) and hasattr(child, "gelu") and isinstance(child.gelu, QuickGELU):
                _use_silu(child)
            _replace(child, linear)


def _use_silu(mlp: nn.Sequential) -> None:
    """Move the factor of x * sigmoid(1.702 x) into the linears around it: what is left is one pass over memory."""
    for parameter, factor in ((mlp.c_fc.weight, 1.702), (mlp.c_fc.bias, 1.702), (mlp.c_proj.weight, 1 / 1.702)):
        parameter.mul_(factor)
    mlp.gelu = nn.SiLU(inplace=True)
