"""Surprise per token, its picture, planted bugs and their ranks: against the model's own loss and brute force."""

import ast
import copy
import math
import random
from pathlib import Path

import pandas as pd
import pytest
import sklearn.linear_model
import torch
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

from course_utils.evaluation import planted_bugs, surprise
from course_utils.evaluation.planted_bugs import bug_ranks, chance_in_top, plant_bugs
from course_utils.evaluation.surprise import Token, surprise_picture, token_surprise
from course_utils.models.causal import build_causal_lm
from course_utils.profiles import get_profile

CODE = '''import numpy as np

def mean(values, weights):
    """Weighted mean, é 中 🐍."""
    total = 0
    for value, weight in zip(values, weights):
        total = total + value * weight
    if total == 0 and len(values) < 2:
        return np.divide(total, weights)
    return total / np.sum(weights, 0)
'''


@pytest.fixture(scope="module")
def model(session_tokenizer):
    return build_causal_lm(get_profile("tiny", context_length=48), session_tokenizer).eval()


@pytest.fixture(scope="module")
def qwen(session_tokenizer):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 48}
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=len(session_tokenizer), **sizes)).eval()


def bits_of(model, sequence, width):
    """Return the bits of every token but the first, one forward pass for each, with at least half a window before."""
    starts = [*range(0, max(1, len(sequence) - width), width // 2), max(0, len(sequence) - width)]
    bits = []
    for place in range(1, len(sequence)):
        start = next(start for start in starts if start + width > place)
        assert place - start >= width // 2 or start == 0
        with torch.inference_mode():
            logits = model(torch.tensor([sequence[start:place]])).logits[0, -1]
        bits.append(-logits.log_softmax(-1)[sequence[place]].item() / math.log(2))
    return bits


@pytest.mark.parametrize(("kind", "width"), [("model", 2), ("model", 7), ("model", 16), ("model", 48), ("qwen", 48)])
def test_the_bits_are_those_of_a_token_by_token_oracle(kind, width, session_tokenizer, request, monkeypatch):
    model = request.getfixturevalue(kind)
    monkeypatch.setattr(surprise, "LONGEST_WINDOW", width)
    sequence = [session_tokenizer.eos_token_id, *session_tokenizer(CODE)["input_ids"]]
    assert len(sequence) > width
    expected = iter(bits_of(model, sequence, width))
    tokens = token_surprise(model, session_tokenizer, CODE)
    for token in tokens:
        parts = 1 if token.text.isascii() else len(session_tokenizer(token.text)["input_ids"])
        assert token.bits == pytest.approx(sum(next(expected) for _ in range(parts)), rel=1e-3), token
    assert next(expected, None) is None
    with torch.inference_mode():
        logits = model(torch.tensor([sequence[:1]])).logits[0, -1]
    assert tokens[0].expected == session_tokenizer.decode([logits.argmax().item()])
    assert tokens[0].probability == pytest.approx(logits.softmax(-1).max().item(), rel=1e-5)


def assert_covers(tokens, text):
    assert "".join(token.text for token in tokens) == text
    assert all(token.text == text[token.start : token.end] != "" for token in tokens)


@settings(max_examples=40)
@given(text=st.text(st.sampled_from("aé中🐍👩‍💻 \n\t\r\0<&'\"x=̈"), min_size=1, max_size=40))
def test_every_character_is_covered_once(model, session_tokenizer, text):
    assert_covers(token_surprise(model, session_tokenizer, text), text)


def test_trimmed_spaces_and_control_tokens_are_text(model, code_tokenizer):
    assert len(token_surprise(model, code_tokenizer, "<|endoftext|>")) > 1
    code_tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert_covers(token_surprise(model, code_tokenizer, "  x =  1"), "  x =  1")


def test_no_text_and_another_models_tokenizer_are_refused(model, session_tokenizer):
    with pytest.raises(ValueError, match="there are no tokens"):
        token_surprise(model, session_tokenizer, "")
    small = GPT2LMHeadModel(type(model.config)(vocab_size=10, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match=r"made the id \d+, but the model has only 10 tokens"):
        token_surprise(small, session_tokenizer, "import")


def token(text, bits, start=0, expected=" plt", probability=0.62):
    return Token(text, start, start + len(text), bits, expected, probability)


ATTACKS = "\n\n x", "\tif a < b:\r\n\tpass\r\n", "<script>alert(1)</script>", "</pre></span>\"'><img src=x onerror=y>"


@pytest.mark.parametrize("text", ATTACKS)
def test_the_text_of_the_page_is_the_source_and_nothing_of_it_is_markup(model, session_tokenizer, text):
    whole = token("<img src=x>&lt;", 9.32, expected='"><b>\n')  # markup within one token
    tokens = [*token_surprise(model, session_tokenizer, text), whole]
    page = BeautifulSoup(surprise_picture(tokens).html, "html.parser")
    assert page.pre.get_text() == text + whole.text
    assert {tag.name for tag in page.find_all(True)} == {"figure", "figcaption", "pre", "span", "wbr"}
    assert [span["title"] for span in page.pre.find_all("span")] == [token.details for token in tokens]
    assert whole.details == "9.3 bits; expected '\"><b>\\n' (62 %)"


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_grow_darker_with_the_bits_and_the_text_stays_readable():
    html = surprise_picture([token("x", bits) for bits in (0, 3, 6, 9, 12, 50)]).html
    spans = BeautifulSoup(html, "html.parser").pre.find_all("span")
    styles = [dict(part.split(":") for part in span["style"].split(";")) for span in spans]
    light = [luminance(style["background"]) for style in styles]
    assert light[:5] == sorted(set(light), reverse=True)
    assert light[5] == light[4]
    text = luminance(styles[0]["color"])
    assert all((value + 0.05) / (text + 0.05) > 7 for value in light)  # WCAG's AAA
    assert [("text-decoration" in style) for style in styles] == [False] * 4 + [True] * 2


def test_a_terminal_gets_the_most_surprising_lines_and_a_reader_the_first_of_them():
    tokens = [token("a\n", 1.0), token("b\n", 9.32, start=2), token("c", 5.0, start=4)]
    lines = surprise.surprise_text(tokens, most=2).splitlines()[1:]
    assert lines == [f"line {n}: {tokens[n - 1].text!r}, {tokens[n - 1].details}" for n in (2, 3)]
    picture = surprise_picture(tokens, "me")
    assert picture.text == surprise.surprise_text(tokens)
    label = BeautifulSoup(picture.html, "html.parser").figure["aria-label"]
    assert label == f"Code, colored by how surprising it is to me; most of all 'b': {tokens[1].details}."


def changes(source, kind):
    bugs = plant_bugs(source, seed=0, per_kind=10_000)
    return {(bug.original, bug.source[bug.start : bug.end]) for bug in bugs if bug.kind == kind}


def test_planted_bugs_parse_and_differ_in_exactly_their_span():
    paths = sorted(Path(sklearn.linear_model.__file__).parent.glob("_*.py"))[1:5]
    for source, most in ((CODE, 10_000), *((path.read_text(encoding="utf-8"), 2) for path in paths)):
        bugs = plant_bugs(source, 3, per_kind=most)
        assert {bug.kind for bug in bugs} == set(planted_bugs.KINDS)
        for bug in bugs:
            assert bug.original_source == source != bug.source
            assert ast.dump(ast.parse(bug.source)) != ast.dump(ast.parse(source))
    assert plant_bugs(CODE, 1) == plant_bugs(CODE, 1) != plant_bugs(CODE, 2)


@pytest.mark.parametrize(
    ("source", "kind", "expected"),
    [
        ("a = 1\nb = 2\nc = a\nd = 3\n", "wrong variable", {("a", "b")}),  # c and d have no value yet
        ("def f(x, y):\n    return x\n", "wrong variable", {("x", "y")}),
        ("def f(x):\n    z = x\n    return z\n", "wrong variable", {("z", "x")}),
        ("def f(x):\n    total = x + x\n", "wrong variable", set()),
        ("def f(xs):\n    for x in xs:\n        print(x)\n", "wrong variable", {("x", "xs")}),
        ("def f(p):\n    with p as q:\n        q()\n", "wrong variable", {("q", "p")}),
        ("def f(a, b):\n    def g(c):\n        return c\n    return g\n", "wrong variable", set()),
        ("f(a, b, *c)", "swapped arguments", {("a, b", "b, a")}),
        ("f(a, a)", "swapped arguments", set()),
        ("f(*a, b, key=c)", "swapped arguments", set()),
        ("f((a),  # é, b\n  b + 1)", "swapped arguments", {("a),  # é, b\n  b + 1", "b + 1),  # é, b\n  a")}),
        ("max(a, b)", "swapped arguments", set()),
        ("x = 'é+' + (a) - (  # + -\n  b)", "wrong operator", {("+", "-"), ("-", "+")}),
        ("a < b <= c", "wrong operator", {("<", "<="), ("<=", "<")}),
        ("a and b or c", "wrong operator", {("and", "or"), ("or", "and")}),
        ("a - -b", "wrong operator", {("-", "+")}),
        ("f(*a, **b)\n\n@d\ndef g(*, k): return k % 2", "wrong operator", set()),
        ("f'{a + b}'", "wrong operator", set()),
    ],
)
def test_bugs_are_planted_where_python_agrees(source, kind, expected):
    assert changes(source, kind) == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_wide_characters_do_not_shift_the_places(end):
    source = end.join(["s = '中🐍'; a = 1", "b = 2; t = '\u2028' + '\x0c'", "f(s, '🐍', a + b)", ""])
    assert {("a", "b"), ("b", "a")} <= changes(source, "wrong variable")
    assert ("s, '🐍'", "'🐍', s") in changes(source, "swapped arguments")
    assert changes(source, "wrong operator") == {("+", "-")}


def brute_force(tokens, start, end):
    touching = [t.bits for t in tokens if set(range(t.start, t.end)) & set(range(start, end))]
    others = [t.bits for t in tokens if not set(range(t.start, t.end)) & set(range(start, end))]
    above = [(bits > max(touching)) + (bits == max(touching)) / 2 for bits in others]
    return touching, others, sum(above) / len(above)


def test_ranks_are_those_of_brute_force(model, session_tokenizer):
    bugs = plant_bugs(CODE, 5, per_kind=2)
    before = token_surprise(model, session_tokenizer, CODE)
    for bug, rank in zip(bugs, bug_ranks(model, session_tokenizer, bugs).itertuples(), strict=True):
        tokens = token_surprise(model, session_tokenizer, bug.source)
        touching, others, share = brute_force(tokens, bug.start, bug.end)
        assert rank.share == pytest.approx(share)
        assert (rank.kind, rank.tokens, rank.others) == (bug.kind, len(touching), len(others))
        _, _, share = brute_force(before, bug.start, bug.start + len(bug.original))
        assert rank.original_share == pytest.approx(share)


def test_ties_are_averaged(model, session_tokenizer):
    flat = copy.deepcopy(model)
    torch.nn.init.zeros_(flat.lm_head.weight)  # every token is as likely as any other
    ranks = bug_ranks(flat, session_tokenizer, plant_bugs("a = 1\nb = 2\nc = a + b\n", 1))
    assert (ranks["share"] == 0.5).all()


def test_chance_is_what_random_surprises_give():
    draw, rows = random.Random(0), []
    for _ in range(4000):
        tokens, others = draw.choice([(1, 60), (3, 40), (8, 200)])
        worst = max(draw.random() for _ in range(tokens))
        share = sum(draw.random() > worst for _ in range(others)) / others
        rows.append((tokens, others, share))
    ranks = pd.DataFrame(rows, columns=["tokens", "others", "share"])
    for top in (0.01, 0.05, 0.1):
        assert (ranks["share"] <= top).mean() == pytest.approx(chance_in_top(ranks, top), abs=0.02), top
