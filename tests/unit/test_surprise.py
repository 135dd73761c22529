"""Surprise per token, its picture, planted bugs and their ranks: against the model's own loss and brute force."""

import ast
import copy
import math
import random
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from transformers import AutoTokenizer, GPT2Config, Qwen3Config, Qwen3ForCausalLM
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

from course_utils.data.tokenization import load_tokenizer
from course_utils.evaluation import planted_bugs, surprise
from course_utils.evaluation.planted_bugs import BugRank, bug_ranks, plant_bugs, ranking_score
from course_utils.evaluation.surprise import Token, surprise_html, token_surprise
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
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen3Config(vocab_size=len(session_tokenizer), num_key_value_heads=1, head_dim=16, **sizes)
    config.max_position_embeddings = 48
    return Qwen3ForCausalLM(config).eval()


def total_bits(model, ids):
    """Bits of all tokens but the first, from the library's own loss."""
    ids = torch.tensor([ids])
    with torch.inference_mode():
        return model(ids, labels=ids).loss.item() * (ids.shape[1] - 1) / math.log(2)


@pytest.mark.parametrize("kind", ["model", "qwen"])
def test_the_bits_are_the_models_own_loss(kind, session_tokenizer, request):
    model, text = request.getfixturevalue(kind), "for i in range(10):\n    print('é', i)\n"
    ids = session_tokenizer(text)["input_ids"]
    tokens = token_surprise(model, session_tokenizer, text)
    expected = total_bits(model, [session_tokenizer.eos_token_id, *ids])
    assert sum(token.bits for token in tokens) == pytest.approx(expected, rel=1e-5)


def test_expected_is_what_the_model_finds_most_likely(model, session_tokenizer):
    tokens = token_surprise(model, session_tokenizer, "import os")
    with torch.inference_mode():
        logits = model(torch.tensor([[session_tokenizer.eos_token_id]])).logits[0, -1]
    assert tokens[0].expected == session_tokenizer.decode([logits.argmax().item()])
    assert tokens[0].probability == pytest.approx(logits.softmax(-1).max().item(), rel=1e-5)


@pytest.mark.parametrize("window", [2, 3, 7, 16, 48, None])
def test_a_long_text_counts_every_token_once_with_at_least_half_a_window_before_it(model, session_tokenizer, window):
    ids = session_tokenizer(CODE)["input_ids"]
    sequence, width = [session_tokenizer.eos_token_id, *ids], window or 48
    assert len(sequence) > width
    total = 0.0
    starts = [*range(0, len(sequence) - width, width // 2), len(sequence) - width]
    for place in range(1, len(sequence)):
        start = next(start for start in starts if start + width > place)
        assert place - start >= width // 2 or start == 0
        with torch.inference_mode():
            logits = model(torch.tensor([sequence[start:place]])).logits[0, -1]
        total -= logits.log_softmax(-1)[sequence[place]].item() / math.log(2)
    tokens = token_surprise(model, session_tokenizer, CODE, window)
    assert sum(token.bits for token in tokens) == pytest.approx(total, rel=1e-4)


def test_without_an_end_of_text_token_nothing_predicts_the_first_token(model, code_tokenizer):
    code_tokenizer.bos_token = code_tokenizer.eos_token = None
    first, *others = token_surprise(model, code_tokenizer, "import numpy as np")
    assert (first.bits, first.expected, first.probability) == (None, "", 0.0)
    assert sum(t.bits for t in others) == pytest.approx(
        total_bits(model, code_tokenizer("import numpy as np")["input_ids"]), rel=1e-5
    )
    (only,) = token_surprise(model, code_tokenizer, "import")
    assert only.bits is None
    assert "nothing predicts it" in surprise_html([only])


def assert_covers(tokens, text):
    assert "".join(token.text for token in tokens) == text
    assert [token.start for token in tokens] == [0, *(token.end for token in tokens[:-1])]
    assert tokens[-1].end == len(text)
    assert all(token.text == text[token.start : token.end] != "" for token in tokens)


@settings(max_examples=40)
@given(text=st.text(st.sampled_from("aé中🐍👩‍💻 \n\t\r\0<&'\"x=̈"), min_size=1, max_size=40))
def test_every_character_is_covered_once(model, session_tokenizer, text):
    tokens = token_surprise(model, session_tokenizer, text)
    assert_covers(tokens, text)
    ids = session_tokenizer(text)["input_ids"]
    assert len(tokens) <= len(ids)


def test_the_tokens_of_one_character_become_one(model, session_tokenizer):
    tokens = token_surprise(model, session_tokenizer, "x🐍")
    ids = session_tokenizer("🐍")["input_ids"]
    assert len(ids) > 1
    assert [token.text for token in tokens] == ["x", "🐍"]
    together = [session_tokenizer.eos_token_id, *session_tokenizer("x")["input_ids"], *ids]
    assert sum(token.bits for token in tokens) == pytest.approx(total_bits(model, together), rel=1e-5)


def test_a_space_that_offsets_leave_out_goes_to_the_next_token(model, code_tokenizer):
    from tokenizers import processors

    code_tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    text = "  x =  1"
    assert_covers(token_surprise(model, code_tokenizer, text), text)


def test_a_control_token_in_the_text_is_text(model, session_tokenizer):
    tokens = token_surprise(model, session_tokenizer, "<|endoftext|>")
    assert len(tokens) > 1


def test_a_model_without_its_tokenizer_is_refused(model, session_tokenizer, tmp_path):
    with pytest.raises(ValueError, match="there is no tokenizer"):
        token_surprise(model, None, "x")
    with pytest.raises(ValueError, match="text is empty"):
        token_surprise(model, session_tokenizer, "")
    with pytest.raises(ValueError, match="at least 2"):
        token_surprise(model, session_tokenizer, "x", window=1)
    with pytest.raises(ValueError, match="tokenizer"):
        load_tokenizer(tmp_path)
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no tokens"):
        token_surprise(model, AutoTokenizer.from_pretrained(tmp_path), "x")
    small = GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match="knows only 10 tokens"):
        token_surprise(small, session_tokenizer, "import")


# The picture.


def token(text, bits, start=0, expected=" plt", probability=0.62):
    return Token(text, start, start + len(text), bits, expected, probability)


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        "\n\n x",
        "\tif a < b:\r\n\tpass\r\n",
        "<script>alert(1)</script>",
        "</pre></span>\"'><img src=x onerror=y>",
    ],
)
def test_the_text_of_the_page_is_the_source_and_nothing_of_it_is_markup(model, session_tokenizer, text):
    tokens = token_surprise(model, session_tokenizer, text)
    page = BeautifulSoup(surprise_html(tokens, label='a "label" & more'), "html.parser")
    assert page.pre.get_text() == text
    assert {tag.name for tag in page.find_all(True)} == {"figure", "figcaption", "pre", "span"}
    assert page.figure["aria-label"] == 'a "label" & more'
    assert [span["title"] for span in page.pre.find_all("span")] == [surprise.describe(t) for t in tokens]


def test_details_are_told_in_words():
    assert surprise.describe(token("x", 9.32)) == "9.3 bits; expected ' plt' (62 %)"
    html = surprise_html([token("x", 9.32, expected='"<b>\n')])
    assert BeautifulSoup(html, "html.parser").pre.span["title"] == "9.3 bits; expected '\"<b>\\n' (62 %)"


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_grow_darker_with_the_bits_and_the_text_stays_readable():
    html = surprise_html([token("x", bits) for bits in (0, 3, 6, 9, 12, 50)])
    styles = [
        dict(part.split(":") for part in span["style"].split(";"))
        for span in BeautifulSoup(html, "html.parser").pre.find_all("span")
    ]
    light = [luminance(style["background"]) for style in styles]
    assert light[0] == pytest.approx(1.0)
    assert light[:5] == sorted(light[:5], reverse=True)
    assert len(set(light[:5])) == 5
    assert light[5] == light[4]
    text = luminance(styles[0]["color"])
    assert all((value + 0.05) / (text + 0.05) > 7 for value in light)  # WCAG's AAA
    assert [("text-decoration" in style) for style in styles] == [False] * 4 + [True] * 2


def test_a_terminal_gets_the_most_surprising_tokens_with_their_lines():
    tokens = [token("a\n", 1.0), token("b\n", 9.32, start=2), token("c", 5.0, start=4)]
    lines = surprise.surprise_text(tokens, most=2).splitlines()
    assert lines[1:] == [
        "line 2: 'b\\n', 9.3 bits; expected ' plt' (62 %)",
        "line 3: 'c', 5.0 bits; expected ' plt' (62 %)",
    ]


def test_a_notebook_gets_both():
    InteractiveShell.instance()
    with capture_output() as captured:
        surprise.show_surprise([token("x", 9.32)])
    InteractiveShell.clear_instance()
    (output,) = captured.outputs
    assert output.data["text/html"].startswith("<figure")
    assert "9.3 bits" in output.data["text/plain"]


# Planted bugs.


def everything(source):
    return plant_bugs(source, seed=0, per_kind=10_000)


def changes(source, kind):
    return {(bug.original, bug.source[bug.start : bug.end]) for bug in everything(source) if bug.kind == kind}


def test_planted_bugs_parse_and_differ_in_exactly_their_span():
    bugs = everything(CODE)
    assert {bug.kind for bug in bugs} == set(planted_bugs.KINDS)
    for bug in bugs:
        assert bug.original_source == CODE
        assert bug.source != CODE
        assert bug.source[: bug.start] == CODE[: bug.start]
        assert bug.source[bug.end :] == CODE[bug.start + len(bug.original) :]
        assert ast.dump(ast.parse(bug.source)) != ast.dump(ast.parse(CODE))


def test_real_files_take_bugs_of_every_kind():
    import sklearn.linear_model as package

    for path in sorted(Path(package.__file__).parent.glob("_*.py"))[1:6]:
        source = path.read_text(encoding="utf-8")
        bugs = plant_bugs(source, seed=3, per_kind=2)
        assert len(bugs) == 6
        assert all(bug.original_source == source for bug in bugs)
        assert all(ast.parse(bug.source) for bug in bugs)


def test_the_seed_decides():
    assert plant_bugs(CODE, 1) == plant_bugs(CODE, 1)
    assert len({plant_bugs(CODE, seed)[0].source for seed in range(10)}) > 1
    assert [bug.kind for bug in plant_bugs(CODE, 1, kinds=["wrong operator"])] == ["wrong operator"]


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


def test_what_is_no_python_or_no_kind_is_refused():
    with pytest.raises(ValueError, match="no Python file that parses"):
        plant_bugs("def f(:", 1)
    with pytest.raises(ValueError, match=r"unknown kinds \['typo'\]"):
        plant_bugs("x = 1", 1, kinds=["typo"])
    assert plant_bugs("", 1) == []


# Ranks.


def test_ranks_are_those_of_brute_force(model, session_tokenizer):
    bugs = plant_bugs(CODE, 5, per_kind=2)
    ranks = bug_ranks(model, session_tokenizer, bugs)
    for bug, rank in zip(bugs, ranks, strict=True):
        tokens = token_surprise(model, session_tokenizer, bug.source)
        touching = [t for t in tokens if set(range(t.start, t.end)) & set(range(bug.start, bug.end))]
        others = [t.bits for t in tokens if t not in touching]
        worst = max(t.bits for t in touching)
        above = [1.0 if bits > worst else 0.5 if bits == worst else 0.0 for bits in others]
        assert rank.share == pytest.approx(sum(above) / len(above))
        assert (rank.kind, rank.bits, rank.tokens, rank.others) == (bug.kind, worst, len(touching), len(others))
        before = token_surprise(model, session_tokenizer, CODE)
        end = bug.start + len(bug.original)
        assert rank.original_bits == max(t.bits for t in before if t.end > bug.start and t.start < end)


def test_ties_are_averaged(model, session_tokenizer):
    flat = copy.deepcopy(model)
    torch.nn.init.zeros_(flat.lm_head.weight)  # every token is as likely as any other
    ranks = bug_ranks(flat, session_tokenizer, plant_bugs("a = 1\nb = 2\nc = a + b\n", 1))
    assert [rank.share for rank in ranks] == [0.5] * len(ranks)
    assert ranking_score(ranks)["more surprising than the original"]["model"] == 0.5


def test_chance_is_what_random_surprises_give():
    draw, ranks = random.Random(0), []
    for _ in range(4000):
        inside, others = draw.choice([(1, 60), (3, 40), (8, 200)])
        worst = max(draw.random() for _ in range(inside))
        share = sum(draw.random() > worst for _ in range(others)) / others
        ranks.append(BugRank("any", share, inside, others, worst, draw.random()))
    for measure, value in ranking_score(ranks).items():
        if measure != "bits added" and "original" not in measure:
            assert value["model"] == pytest.approx(value["chance"], abs=0.02), measure


def test_the_score_of_known_ranks():
    ranks = [BugRank("any", share, 1, 99, 5.0, bits) for share, bits in ((0.0, 1), (0.04, 5), (0.5, 6), (0.06, 4))]
    score = ranking_score(ranks)
    assert [score[f"in the top {n}%"]["model"] for n in (1, 5, 10)] == [0.25, 0.5, 0.75]
    assert score["in the top 5%"]["chance"] == pytest.approx(0.05)
    assert score["ROC area"] == {"model": pytest.approx(0.85), "chance": 0.5}
    assert score["bits added"]["model"] == pytest.approx(1.0)
    assert score["more surprising than the original"]["model"] == pytest.approx(0.625)
    with pytest.raises(ValueError, match="no bugs to rank"):
        ranking_score([])
