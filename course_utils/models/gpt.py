"""GPT-2 by hand in plain PyTorch: the whole model, and the cache of keys and values that makes generation fast.

Published weights are the module gpt2_weights; the choice of the next token is decoding.
Letters in comments: B rows, T tokens, C width (emb_dim), H heads, D = C / H, S tokens seen so far, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# GPT-2 small as it was published: 124,439,808 parameters. The tutorial's model has no bias at queries, keys and values,
# and an output layer of its own (qkv_bias and tie_weights False): 163,009,536.
GPT_CONFIG_124M = {
    "vocab_size": 50257,
    "context_length": 1024,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": True,
    "tie_weights": True,
}
# These keys may be left out. With scaling, block number i (from 1) divides its attention scores by i, as in CodeParrot.
OPTIONAL = {"tie_weights": True, "scale_attn_by_inverse_layer_idx": False}


def check_config(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return `cfg` with every key; refuses wrong keys, and heads that do not divide the width."""
    full, known = OPTIONAL | dict(cfg), GPT_CONFIG_124M | OPTIONAL
    if wrong := sorted(full.keys() ^ known.keys()):
        raise ValueError(f"the configuration lacks or does not know {', '.join(wrong)}; the keys: {', '.join(known)}.")
    if full["emb_dim"] % full["n_heads"]:
        raise ValueError(f"n_heads is {full['n_heads']}; it must divide emb_dim, {full['emb_dim']}.")
    return full


class KVCache:
    """Keys and values of all tokens seen, for generation: call `model(idx, cache)` with the new tokens only."""

    def __init__(self, cfg: Mapping[str, Any], limit: int | None = None) -> None:
        """Make an empty cache for `limit` tokens, at most the model's context; the first call takes the memory."""
        self.length, self.limit = 0, min(limit or cfg["context_length"], cfg["context_length"])
        self._blocks: list[tuple[Tensor, Tensor] | None] = [None] * cfg["n_layers"]

    def append(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, H, T, D) of new tokens in one block; return those of all tokens, (B, H, S, D)."""
        if self._blocks[block] is None:
            room = (*keys.shape[:2], self.limit, keys.shape[3])
            self._blocks[block] = keys.new_empty(room), values.new_empty(room)
        stored, end = self._blocks[block], self.length + keys.shape[2]
        for old, new in zip(stored, (keys, values), strict=True):
            old[:, :, self.length : end] = new
        return stored[0][:, :, :end], stored[1][:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Make row `rows[i]` the new row i, for all i: rows may be dropped and repeated, as in a beam search."""
        self._blocks = [block and (block[0][rows], block[1][rows]) for block in self._blocks]


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * scale + shift for each vector; the variance is divided by C, not C - 1."""

    eps = 1e-5

    def __init__(self, emb_dim: int) -> None:
        """Start without any scale or shift."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C) -> (..., C), in one fused kernel."""
        return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)


class GELU(nn.Module):
    """GPT-2's activation: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))).

    The exact integral, without "tanh", differs by up to 0.0005: enough to be seen in the logits of published weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every value, in one kernel instead of the formula's eight."""
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Sequential):
    """Two linear layers, four times as wide in between: each token by itself, (B, T, C) -> (B, T, C)."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        """Size the layers by `emb_dim`."""
        width = cfg["emb_dim"]
        super().__init__(nn.Linear(width, 4 * width), GELU(), nn.Linear(4 * width, width))


class MultiHeadAttention(nn.Module):
    """Causal attention, softmax(q kᵀ / sqrt(D)) v in each head: a token attends to itself and those before it."""

    def __init__(self, cfg: Mapping[str, Any], block: int = 0) -> None:
        """Make the attention of block number `block`, counted from 0."""
        super().__init__()
        width, self.n_heads, self.block = cfg["emb_dim"], cfg["n_heads"], block
        self.qkv = nn.Linear(width, 3 * width, bias=cfg["qkv_bias"])  # one large product is faster than three
        self.out_proj = nn.Linear(width, width)
        self.drop_rate = cfg["drop_rate"]
        divisor = block + 1 if cfg.get("scale_attn_by_inverse_layer_idx") else 1
        self.scale = 1 / (math.sqrt(width // self.n_heads) * divisor)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Let the tokens of x (B, T, C) attend to each other, and to those in the cache; (B, T, C)."""
        parts = self.qkv(x).chunk(3, dim=-1)  # 3 times (B, T, C)
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts)  # (B, H, T, D)
        mask = None
        if cache is not None:
            k, v = cache.append(self.block, k, v)  # (B, H, S, D)
            new, total = q.shape[2], k.shape[2]
            if 1 < new < total:  # SDPA's own causal mask starts at the first token, not at the first new one
                mask = torch.ones(new, total, dtype=torch.bool, device=x.device).tril(total - new)  # (T, S)
        dropout = self.drop_rate if self.training else 0.0
        causal = mask is None and q.shape[2] > 1  # a single token sees everything: nothing to mask
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=self.scale)  # (B, H, T, D)
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)


class TransformerBlock(nn.Module):
    """Attention, then the feed-forward network, each normalised before and added to what came in."""

    def __init__(self, cfg: Mapping[str, Any], block: int = 0) -> None:
        """Make block number `block`, counted from 0."""
        super().__init__()
        self.norm1, self.att = LayerNorm(cfg["emb_dim"]), MultiHeadAttention(cfg, block)
        self.norm2, self.ff = LayerNorm(cfg["emb_dim"]), FeedForward(cfg)
        self.drop_shortcut = nn.Dropout(cfg["drop_rate"])

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Transform (B, T, C) -> (B, T, C)."""
        x = x + self.drop_shortcut(self.att(self.norm1(x), cache))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))


class GPTModel(nn.Module):
    """Token ids in, scores of every possible next token out: GPT-2, with its initial weights (Radford et al., 2019)."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        """Build the model from the keys of `GPT_CONFIG_124M` and `OPTIONAL`."""
        super().__init__()
        self.cfg = cfg = check_config(cfg)
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.ModuleList(TransformerBlock(cfg, i) for i in range(cfg["n_layers"]))
        self.final_norm = LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)
        if cfg["tie_weights"]:  # a token's vector serves as its input and as the direction that predicts it
            self.out_head.weight = self.tok_emb.weight
        self._draw_weights()

    def _draw_weights(self) -> None:
        """Draw fresh weights as the library does for GPT-2: normal with deviation 0.02, and biases 0."""
        # Every block adds twice to the residual stream: in a deep model the sum is as large as in a flat one.
        smaller = 1 / math.sqrt(2 * self.cfg["n_layers"])
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                onto_residual = name.endswith(("att.out_proj", "ff.2"))
                nn.init.normal_(module.weight, std=0.02 * (smaller if onto_residual else 1))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the logits (B, T, V) for token ids (B, T), which follow those in the `cache` and are added to it."""
        start = 0 if cache is None else cache.length
        end, limit = start + idx.shape[1], self.cfg["context_length"] if cache is None else cache.limit
        if end > limit:
            raise ValueError(
                f"{end} tokens do not fit: the context is {limit}. "
                f"Cut them, idx[:, -{limit}:], or build the model with a larger context_length."
            )
        x = self.drop_emb(self.tok_emb(idx) + self.pos_emb.weight[start:end])  # (B, T, C)
        for block in self.trf_blocks:
            x = block(x, cache)
        if cache is not None:
            cache.length = end  # only now: every block had to start at the same place
        return self.out_head(self.final_norm(x))  # (B, T, V)
