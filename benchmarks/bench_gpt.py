"""The hand-written GPT: a training step against other GPTs of the same size, and generation with and without a cache.

The others are the library's GPT-2, a block as in nanoGPT (SDPA, but norms and loss in its own way), and the tutorial's:
three projections, a mask in a buffer, softmax over stored weights, GELU and norms as formulas. All take turns, in
float32 and with the same parameters; the fastest of several turns counts, since other work only makes steps slower.
"""

import math
import time

import torch
from torch import nn
from torch.nn import functional as F

from course_utils.models.causal import gpt2_config
from course_utils.models.decoding import generate_text
from course_utils.models.gpt import GPTModel

LIBRARY, NANO, TUTORIAL = "GPT2LMHeadModel", "nanoGPT-style", "tutorial's"
STEP = "training step of the hand-written GPT against {}"
CACHE = "256 new tokens with a cache against without"
TARGETS = {STEP.format(LIBRARY): 1, STEP.format(TUTORIAL): 1, CACHE: 5}
TRAIN = {"vocab_size": 8192, "context_length": 128, "emb_dim": 256, "n_heads": 4, "n_layers": 4}
GENERATE = TRAIN | {"context_length": 512}
BATCH, REPETITIONS = 8, 12


class NanoBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width, self.heads = cfg["emb_dim"], cfg["n_heads"]
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.gelu = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.GELU()

    def attend(self, x):
        rows, length, width = x.shape
        parts = self.qkv(x).split(width, dim=2)
        q, k, v = (p.view(rows, length, self.heads, width // self.heads).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().view(rows, length, width))

    def forward(self, x):
        x = x + self.attend(self.before(x))
        return x + self.down(self.gelu(self.up(self.between(x))))


class FormulaNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(variance + 1e-5) + self.shift


class TutorialBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width, self.heads = cfg["emb_dim"], cfg["n_heads"]
        self.before, self.between = FormulaNorm(width), FormulaNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        context = cfg["context_length"]
        self.register_buffer("mask", torch.triu(torch.ones(context, context), diagonal=1))

    def attend(self, x):
        rows, length, width = x.shape
        q, k, v = (p(x).view(rows, length, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3)
        scores.masked_fill_(self.mask.bool()[:length, :length], -torch.inf)
        weights = torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).contiguous().view(rows, length, width))

    def gelu(self, x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    forward = NanoBlock.forward


class OtherGPT(nn.Module):
    def __init__(self, cfg, block):
        super().__init__()
        self.tokens = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.positions = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.blocks = nn.Sequential(*(block(cfg) for _ in range(cfg["n_layers"])))
        self.norm = nn.LayerNorm(cfg["emb_dim"]) if block is NanoBlock else FormulaNorm(cfg["emb_dim"])
        self.head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, idx):
        x = self.tokens(idx) + self.positions(torch.arange(idx.shape[1], device=idx.device))
        return self.head(self.norm(self.blocks(x)))


def library_model():
    from transformers import GPT2LMHeadModel

    names = ("vocab_size", "context_length", "n_layers", "emb_dim", "n_heads")
    model = GPT2LMHeadModel(gpt2_config(*(TRAIN[name] for name in names), dropout=0.0))
    model.loss_type = "ForCausalLM"
    return model


def stepper(model):
    """Return a function that takes one optimizer step on (B, T + 1) ids and tells its seconds."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def step(ids):
        start = time.perf_counter()
        if hasattr(model, "config"):  # the library moves the labels itself
            loss = model(input_ids=ids[:, :-1], labels=ids[:, :-1], use_cache=False).loss
        else:
            loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def training_rows():
    torch.manual_seed(0)
    models = {
        "ours": GPTModel(TRAIN | {"drop_rate": 0.0, "qkv_bias": True}),
        LIBRARY: library_model(),
        NANO: OtherGPT(TRAIN, NanoBlock),
        TUTORIAL: OtherGPT(TRAIN, TutorialBlock),
    }
    sizes = {sum(p.numel() for p in model.parameters()) for model in models.values()}
    if len(sizes) > 1:
        raise RuntimeError(f"the models differ in size: {sizes}")
    steps = {name: stepper(model) for name, model in models.items()}
    ids = torch.randint(TRAIN["vocab_size"], (BATCH, TRAIN["context_length"] + 1))
    for step in steps.values():
        step(ids)
    turns = [{name: step(ids) for name, step in steps.items()} for _ in range(REPETITIONS)]
    best = {name: min(turn[name] for turn in turns) for name in steps}
    return [row(STEP.format(name), best["ours"], best[name]) for name in (LIBRARY, NANO, TUTORIAL)]


def generation_row():
    torch.manual_seed(0)
    model = GPTModel(GENERATE | {"drop_rate": 0.0, "qkv_bias": True})
    prompt = torch.randint(GENERATE["vocab_size"], (1, 32))
    times = {True: [], False: []}
    for use_cache in (True, False) * 3:
        start = time.perf_counter()
        generate_text(model, prompt, 256, GENERATE["context_length"], use_cache=use_cache)
        times[use_cache].append(time.perf_counter() - start)
    return row(CACHE, min(times[True]), min(times[False]))


def row(name, ours, theirs):
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": theirs / ours, "unit": "s"}


def run() -> list[dict]:
    return [*training_rows(), generation_row()]
