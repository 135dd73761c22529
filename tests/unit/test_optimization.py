"""Parameter groups by what a parameter is, not by what it is called (PITFALLS A14)."""

import pytest
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from course_utils.models.causal import build_causal_lm
from course_utils.models.gpt import GPTModel
from course_utils.profiles import get_profile
from course_utils.training.optimization import get_grouped_params, steps_per_pass

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BY_HAND = {"vocab_size": 50, "context_length": 8, "emb_dim": 16, "n_heads": 2, "n_layers": 2}
MODELS = {
    "GPT-2": lambda: build_causal_lm(get_profile("tiny", vocab_size=300)),
    "BERT": lambda: BertForSequenceClassification(BertConfig(**SMALL)),
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "by hand": lambda: GPTModel(BY_HAND | {"drop_rate": 0.0, "qkv_bias": True}),  # norms called scale and shift
}


@pytest.mark.parametrize("name", MODELS)
def test_matrices_decay_and_nothing_else(name):
    model = MODELS[name]()
    frozen = next(p for p in model.parameters() if p.ndim == 1).requires_grad_(False)
    decaying, rest = get_grouped_params(model, 0.1)
    assert (decaying["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    together = [*map(id, decaying["params"]), *map(id, rest["params"])]
    assert sorted(together) == sorted(id(p) for p in model.parameters() if p is not frozen)  # each once
    for name, parameter in model.named_parameters():
        never = parameter.ndim < 2 or any(word in name for word in ("wte", "wpe", "emb", "embeddings"))
        assert any(parameter is p for p in decaying["params"]) != never, name


def test_a_pass_counts_its_last_incomplete_step():
    assert [steps_per_pass(rows, 4, 1, 2) for rows in (8, 9, 16, 17)] == [1, 2, 2, 3]
