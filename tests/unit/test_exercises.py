"""Exercises: solutions pass, stubs and plausible wrong answers do not, and no answer can break a check."""

import ast
import contextlib
import inspect
import itertools
import json
import math
import re
import signal
import typing
from _thread import interrupt_main
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import nbformat
import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import f1_score
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from course_utils import artifacts, exercises
from course_utils.data import filtering, packing
from course_utils.data.corpus import COLUMNS, Location
from course_utils.evaluation.code_eval import estimate_pass_at_k
from course_utils.exercises import all_exercises, comparing, reveal, show, solution, start
from course_utils.exercises import tokenizer as bpe
from course_utils.models.decoding import next_token_probabilities
from course_utils.training import heldout, losses, optimization


def check(exercise_id, answer, measured=None):
    """Return the verdict, which `check` prints: True if right, False if not, None if not tried or not checked."""
    verdicts = []
    with mock.patch.object(exercises, "_note", lambda exercise, verdict: verdicts.append(verdict)):
        exercises.check(exercise_id, answer, measured)
    return verdicts[0]


TO_WRITE = [id for id, exercise in all_exercises().items() if exercise.examine is None]
# What open exercises ask for: 05.own_loss a function, these a value; 06.sentences trains, in tests/distributed.
VALUES = ["04.own_corpus", "07.softer", "07.bugs", "08.asserts", "08.problem", "11.card"]


@pytest.fixture(autouse=True)
def _first_try(monkeypatch, tmp_path):
    exercises._given.clear()
    monkeypatch.setattr(comparing, "SECONDS_PER_CALL", 1.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))


@pytest.fixture
def tokenizer(monkeypatch, session_tokenizer):
    monkeypatch.setattr(artifacts, "code_tokenizer", lambda profile: session_tokenizer)
    return session_tokenizer


def joined(lists, end):
    return [token for tokens in lists for token in [*tokens, end]]


def cut(tokens, n):
    return [tokens[i : i + n] for i in range(0, len(tokens) - n + 1, n)]


def bins(sure, hits, group):
    pairs = sorted(zip(sure, hits, strict=True), key=lambda pair: group(pair[0]))
    groups = [list(rows) for _, rows in itertools.groupby(pairs, key=lambda pair: group(pair[0]))]
    return sum(abs(sum(s for s, _ in rows) - sum(h for _, h in rows)) for rows in groups) / len(sure)


def most_frequent_by_max(words, merges):
    pairs = []
    while len(pairs) < merges and (counts := bpe.count_pairs(words)):
        pairs.append(max(counts, key=counts.get))
        words = bpe.merge(words, pairs[-1])
    return pairs


def lowest_rank_first(word, merges):
    pieces = tuple(word)
    while known := [pair for pair in itertools.pairwise(pieces) if pair in merges]:
        pieces = bpe.join(pieces, min(known, key=merges.index))
    return pieces


def mended(rows, pad, end, hidden=-100):
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
    return batch, batch.masked_fill(batch == pad, hidden)


def endless_cut(lists, end, n):
    stream, pieces = joined(lists, end), []
    while len(stream) >= n:
        pieces.append(stream[:n])
    return pieces


# What learners write at first, beside the `mistakes` of an exercise, and what the answer to it must show.
WRONG = [
    ("01.jaccard", lambda left, right: len(left & right) / len(left), "expected  0.5"),
    ("02.encode", lambda word, merges: " ".join(bpe.encode(word, merges)), "type str; the type list is expected"),
    ("02.characters", lambda f, texts: sum(len(f(t)) for t in texts) / sum(map(len, texts)), "where  "),
    ("03.share_lost", lambda counts, n: sum(c % n for c in counts), r"share_lost\(\[1, 1000\], 128\)"),
    ("03.pack", endless_cut, r"endless_cut\((?s:.)*still running"),
    ("03.pack", lambda lists, end, n: cut(joined([lists.pop(0) for _ in lists[:]], end), n), r"input into \(\[\], "),
    ("03.conserve", lambda lists, end, n: cut(joined(lists, end), n)[:-1], r"pack_all\(\[\[1, 1, 1, 1, 1\], \["),
    ("03.mask", lambda row, end: [[int(j <= i) for j in range(len(row))] for i in range(len(row))], r"got  +\[\[1, 0"),
    ("04.bits_per_byte", lambda loss, tokens, size: round(loss / math.log(2) * tokens / size, 1), "expected  0.8"),
    ("04.labels", lambda *given: [part.tolist() for part in mended(*given)][::-1], "order is not"),
    ("05.order", lambda points: [0.2 * points[0][1], 0.0], r"fit_line\(\["),
    ("05.evaluate", lambda batches: sum(sum(r[:1]) for b in batches for r in b), r"evaluate\(\[\[\["),
    ("05.steps_per_pass", lambda rows, batch, n, k: math.ceil(rows / (batch * k)), r"steps_per_pass\(100, 8, 2, 4"),
    ("05.steps_per_pass", lambda rows, batch, n, k: rows / (batch * n * k), "type float; the type int is expected"),
    ("07.better", lambda a, b: a[0] / a[2] < b[0] / b[2], "type bool; the type tuple is expected"),
    ("06.f1", lambda p, r: sum(map(int.__and__, p, r)) / max(1, sum(p)), r"f1\(\[1, 1, 1\]"),
    ("06.report", lambda hits, rows: [sum(own) / len(own) for own in hits], "type list; the type float"),
    ("09.leak", lambda T: torch.zeros(T, T, dtype=torch.bool), r"later_places\(2\)|<lambda>|my_later_places"),
    ("11.best", lambda runs: min(runs[name][0][1] for name in runs), "expected  'a'"),
]  # fmt: skip


@pytest.mark.parametrize("exercise_id", [*TO_WRITE, "05.own_loss", *VALUES])
def test_solution_is_shown_and_passes(exercise_id, capsys, tokenizer):
    solution(exercise_id)
    source = capsys.readouterr().out
    assert source.startswith("def ")
    own = {}
    exec(source, own)  # it stands alone: a learner can paste it
    answer = own[all_exercises()[exercise_id].solution.__name__]
    assert check(exercise_id, answer() if exercise_id in VALUES else answer) is True
    assert re.search(rf"{exercise_id}: right \((20\d inputs|everything)", capsys.readouterr().out)


def has_import(string, modules):
    nodes = list(ast.walk(ast.parse(string)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return any(name.split(".")[0] in modules for name in names)


def count_of_transformers(vocab_size, context_length, emb_dim, n_layers):
    config = GPT2Config(vocab_size=vocab_size, n_positions=context_length, n_embd=emb_dim, n_layer=n_layers, n_head=1)
    with torch.device("meta"):
        return GPT2LMHeadModel(config).num_parameters()


def mean_of_rows(labels, logits):
    return losses.token_losses(labels, logits)[:, :-1].mean()


def focal(labels, logits):
    each = losses.token_losses(labels, logits)[:, :-1]
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


def keytoken_weighted(labels, logits):
    return losses.keytoken_weighted_loss(labels, logits, losses.keytoken_ids(artifacts.code_tokenizer(None)))


def look(row, end):
    ended = (torch.tensor(row) == end).int()
    document = ended.cumsum(0) - ended
    return (document[:, None] == document[None, :]).tril()


def kept_by_the_package(probabilities, p):
    kept = next_token_probabilities(torch.tensor([probabilities]).log(), top_p=p)[0]
    return kept.argsort(descending=True, stable=True)[: kept.count_nonzero()]


# The course's own functions, other libraries, and what a check must accept: arrays, tensors, tuples, other algorithms.
RIGHT = [
    ("00.complete", lambda ids, n, ask: start.complete(ids, n, ask) if n else ()),
    ("01.import", filtering.imports_any),
    ("01.import", has_import),
    ("01.jaccard", lambda left, right: 1 - len(left ^ right) / len(left | right)),
    ("01.test_rule", lambda text: sum(w.startswith("test") for w in text.split()) > max(1, text.count("\n") / 20)),
    ("02.train_bpe", most_frequent_by_max),
    ("02.encode", lowest_rank_first),
    ("02.characters", lambda f, texts: np.sum([len(t) for t in texts]) / np.sum([len(f(t)) for t in texts])),
    ("03.share_lost", lambda counts, n: (np.array(counts) % n).sum() / np.sum(counts)),
    ("03.pack", lambda *arguments: packing.pack(*arguments)[0]),
    ("03.conserve", lambda *arguments: packing.pack(*arguments)[0]),
    ("03.mask", look),
    ("04.bits_per_byte", heldout.bits_per_byte),
    ("04.labels", mended),
    ("05.steps_per_pass", optimization.steps_per_pass),
    *[("05.own_loss", function) for function in (mean_of_rows, focal, keytoken_weighted)],
    ("06.f1", lambda p, r: f1_score(r, p, zero_division=0)),
    ("07.better", lambda a, b: min(a, b, key=lambda x: x[0] / x[2])),
    ("06.report", lambda hits, rows: np.mean(np.array(hits).T.flatten()[:rows])),
    ("07.calibration_error", lambda s, h: bins(s, h, lambda s: min(np.digitize(s, np.linspace(0, 1, 11)), 10))),
    ("08.top_p", kept_by_the_package),
    ("08.pass_at_k", estimate_pass_at_k),
    *[(f"09.{name}", all_exercises()[f"09.{name}"].solution) for name in ("attend", "block")],
    ("09.attend", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    ("09.leak", lambda T: [[place > token for place in range(T)] for token in range(T)]),
    ("09.block", lambda self, x: sum([y := x + self.att(self.norm1(x)), self.ff(self.norm2(y))])),
    ("09.parameters", count_of_transformers),
    ("10.speed", lambda seconds, tokens: float(np.median(tokens / np.array(seconds[1:])))),
    ("10.mfu", lambda rate, parameters, peak: np.float64(rate) / (peak / (6 * parameters))),
    ("11.best", lambda runs: sorted(runs, key=lambda name: max(runs[name])[1])[0]),
    ("11.card", ["limits", "test text", "training text"]),
]  # fmt: skip


@pytest.mark.parametrize(("exercise_id", "answer"), RIGHT)
def test_right_answers_written_differently_pass(exercise_id, answer, tokenizer):
    assert check(exercise_id, answer) is True


@pytest.mark.parametrize(("exercise_id", "answer", "message"), WRONG)
def test_wrong_answer_is_shown_its_mistake(exercise_id, answer, message, capsys):
    assert check(exercise_id, answer) is False
    out = capsys.readouterr().out
    assert re.search(message, out), out
    assert all(part in out for part in ("not right yet", "  got ", "  expected ")), out
    assert len(out) < 750  # a small input


@pytest.mark.parametrize("exercise_id", TO_WRITE)
def test_known_mistakes_get_their_hint_at_once(exercise_id, capsys):
    exercise = all_exercises()[exercise_id]
    assert sum(row[0] == exercise_id for row in WRONG) + len(exercise.mistakes) >= 3
    for number, mistake in exercise.mistakes.items():
        exercises._given.clear()
        assert check(exercise_id, mistake) is False
        out = capsys.readouterr().out
        assert all(part in out for part in ("  got ", "  expected ", f"Hint: {exercise.hints[number]}\n")), out
        assert len(out) < 750  # a small input


STUBS = [None, ...]
for body in ("...", "pass", "'Do something.'", "raise NotImplementedError", "return ..."):
    own = {}
    exec(f"def stub(*arguments): {body}", own)
    STUBS.append(own["stub"])


@pytest.mark.parametrize("exercise_id", all_exercises())
def test_untouched_stub(exercise_id, capsys):
    for stub in STUBS:
        assert check(exercise_id, stub) is None
        assert capsys.readouterr().out == f"{exercise_id}: not tried yet\n"
    assert not exercises._given


def test_hints_come_one_by_one_and_start_again_after_success(capsys):
    exercise = all_exercises()["04.bits_per_byte"]

    def hint_for(answer):
        check(exercise.id, answer)
        return capsys.readouterr().out.partition("expected")[2].partition("\n")[2].strip()

    first, second, third = (f"Hint: {hint}" for hint in exercise.hints)
    last = 'No more hints. solution("04.bits_per_byte") shows one way to write it.'
    assert [hint_for(lambda loss, tokens, num_bytes: loss) for _ in range(5)] == ["", first, second, third, last]
    assert hint_for(exercise.solution) == ""
    # What fits comes first, and once only; then the others.
    assert [hint_for(exercise.mistakes[1]) for _ in range(4)] == [second, first, third, last]


def test_what_is_printed_and_not_returned(capsys):
    assert check("04.bits_per_byte", lambda *numbers: print(heldout.bits_per_byte(*numbers))) is False
    message = r"got       None(?s:.)*printed   '0\.82\d+\\n'\nHint: Your function returns None. Use `return`"
    assert re.search(message, capsys.readouterr().out)


def test_exception_names_its_line_and_a_small_input_is_shown(capsys):
    def long_ones_fail(lists, end, n):
        return lists[5] if len(repr((lists, end, n))) > 35 else packing.pack(lists, end, n)[0]

    check("03.pack", long_ones_fail)
    out = capsys.readouterr().out
    assert re.search(r"IndexError: list index out of range \(line \d+: return lists\[5\]", out)
    shown = re.search(r"long_ones_fail(\(.*\))\n", out)[1]
    assert 36 <= len(shown) <= 39


class Hostile:
    def __repr__(self):
        raise SystemExit("no")

    __str__ = __eq__ = __bool__ = __len__ = __iter__ = __repr__
    __hash__ = None


class HostileError(Exception):
    __str__ = Hostile.__repr__


def deep(*arguments):
    return deep(*arguments)


RESULTS = [itertools.count(), Hostile(), mock.ANY, [Hostile()], math.nan, np.array([Hostile()], dtype=object)]
HOSTILE = [type, Hostile, Hostile(), print, 3, "text", lambda a: a, lambda: 1, deep]
HOSTILE += [lambda *a, e=error: (_ for _ in ()).throw(e) for error in (HostileError(), SystemExit(), GeneratorExit())]
HOSTILE += [lambda *arguments, result=result: result for result in RESULTS]
HOSTILE += [lambda *a: [value.append(value) for value in a if isinstance(value, list)] or 0]


@pytest.mark.parametrize("exercise_id", TO_WRITE)
def test_hostile_answers_never_raise_and_never_pass(exercise_id, capsys, monkeypatch):
    monkeypatch.setattr("course_utils.exercises.exercise.RANDOM_CASES", 10)
    for answer in HOSTILE:
        assert check(exercise_id, answer) is False
        assert capsys.readouterr().out.startswith(f"{exercise_id}: not right yet")


def catching(*arguments):
    with contextlib.suppress(Exception):
        while True:
            pass


def interrupted(*arguments):
    interrupt_main()
    catching()


def catching_once(*arguments):
    with contextlib.suppress(BaseException):
        catching()
    catching()


def growing(*arguments):
    parts = []
    while len(parts) < 1000:  # 0.8 GB, should nobody stop it
        parts.append([0] * 100_000)


ENDLESS = [(catching_once, 1, "after 1 second"), (growing, 60, "with 0.1 GB filled")]


@pytest.mark.parametrize(("function", "seconds", "message"), ENDLESS)
def test_endless_calls_are_stopped_and_nothing_is_left_behind(function, seconds, message, monkeypatch):
    monkeypatch.setattr(comparing, "SECONDS_PER_CALL", seconds)
    monkeypatch.setattr(comparing, "BYTES_PER_CALL", 100_000_000)
    earlier = signal.getsignal(signal.SIGALRM)
    with pytest.raises(comparing.Endless, match=message):
        comparing.in_time(function, ())
    assert signal.getsignal(signal.SIGALRM) is earlier
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_users_interrupt_passes_and_other_threads_are_checked_too(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            check("04.bits_per_byte", interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(check, "04.bits_per_byte", heldout.bits_per_byte).result() is True


def test_a_draft_is_tried_without_stopping_the_cell(monkeypatch):
    def endless():
        while True:
            pass

    monkeypatch.setattr(comparing, "SECONDS_PER_CALL", 0.2)
    assert [exercises.attempt(function, 3) for function in (lambda n: n / 4.7, lambda n: None, list)] == [
        "0.638", "None", "no result, TypeError: 'int' object is not iterable",
    ]  # fmt: skip
    assert exercises.attempt(endless).startswith("no result, Endless: still running after 0.2 seconds")


@pytest.mark.parametrize("function", [lambda: check("03.pakc", None), lambda: solution("03.pakc")])
def test_unknown_exercise_lists_the_known_ones(function):
    with pytest.raises(ValueError, match=r"no exercise '03\.pakc'; there are 00\.complete.*03\.pack"):
        function()


def test_show_prints_sources_and_highlights_them(capsys, monkeypatch):
    show(cut)
    assert capsys.readouterr().out == inspect.getsource(cut)
    monkeypatch.setattr(exercises, "display", lambda code: print(code.html))
    for folded in (True, False):
        show(Hostile.__repr__, folded)
        assert '<span class="k">def</span>' in (page := capsys.readouterr().out)
        assert ("<details>" in page) is folded


def write_corpus(folder, **splits):
    (folder / "data").mkdir(parents=True)
    for split, contents in splits.items():
        columns = {name: contents if name == "content" else [name] * len(contents) for name in COLUMNS}
        Dataset.from_dict(columns).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_own_corpus_that_is_a_data_set_and_its_faults(tmp_path, capsys):
    code = [inspect.getsource(module) for module in (ast, typing, inspect)]
    right = write_corpus(tmp_path / "set", train=code[1:], validation=code[:1])
    for value in (str(right), right, Location(str(right)), write_corpus(tmp_path / "one", train=code)):
        assert check("04.own_corpus", value) is True
    faulty = {
        "1 files are in both splits": write_corpus(tmp_path / "both", train=code, validation=code[:1]),
        "fewer than 100,000": write_corpus(tmp_path / "short", train=["x = 1\n"], validation=["y = 2\n"]),
        "'validation' has no text": write_corpus(tmp_path / "empty", train=code, validation=[""]),
        "has no rows of a split 'train'": write_corpus(tmp_path / "no", validation=code),
        "does not exist": tmp_path / "missing",
    }
    for message, folder in faulty.items():
        assert check("04.own_corpus", folder) is False
        assert message in capsys.readouterr().out


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("alpha", [0.05, 1.0, 10.0])
def test_own_loss_must_be_divided_by_its_weights(alpha, by_rows, tokenizer, capsys):
    keys = torch.tensor(losses.keytoken_ids(tokenizer))

    def weighted(labels, logits):
        each = losses.token_losses(labels, logits)[:, :-1]  # (B, T - 1)
        if by_rows:
            return (each.mean(1) * losses.row_weights(labels, keys, alpha)).mean()
        return (each * (1 + alpha * torch.isin(labels[:, 1:], keys))).mean()

    assert check("05.own_loss", weighted) is False
    assert "Divide by the sum of your weights" in capsys.readouterr().out


def attending(weigh):
    """Return an attention that makes its weights from the scores, and from where later tokens are, in its own way."""
    return lambda q, k, v: weigh(q @ k.mT / q.shape[-1] ** 0.5, torch.ones(q.shape[-2], k.shape[-2]).triu(1) > 0) @ v


def attended(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


FAULTY = [
    ("05.own_loss", lambda labels, logits: F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "token at t \\+ 1"),
    ("05.own_loss", losses.token_losses, "with one number"),
    ("05.own_loss", lambda labels, logits: mean_of_rows(labels, logits).item(), "float"),
    ("05.own_loss", lambda labels, logits: mean_of_rows(labels, logits).detach(), "no gradient"),
    ("05.own_loss", lambda labels, logits: mean_of_rows(labels, logits) / 0, "finite number"),
    ("05.own_loss", lambda labels, logits: -mean_of_rows(labels, logits), "Right logits cost"),
    ("05.own_loss", lambda labels, logits: mean_of_rows(logits, labels), r"labels \(2, \d+\) and logits"),
    ("05.own_loss", lambda labels, logits: losses.token_losses(labels, logits).sum(), "ln V = 7.62"),
    ("05.own_loss", lambda labels, logits: losses.token_losses(labels, logits).mean(), "last position"),
    ("05.own_loss", lambda labels, logits: torch.ones((), requires_grad=True) - logits.detach().max(), "no gradient"),
    ("07.softer", "same", "keys hits, confidence, bits per byte"),
    ("07.softer", {"hits": "falls", "confidence": "down", "bits per byte": "up"}, "'falls' is none of"),
    ("07.softer", {"hits": "down", "confidence": "down", "bits per byte": "up"}, "not 'down'. Hits:(?s:.*)largest"),
    ("07.softer", {"hits": "same", "confidence": "up", "bits per byte": "up"}, "not 'up'. Confidence:(?s:.*)ratios"),
    ("07.softer", {"hits": "same", "confidence": "down", "bits per byte": "same"}, "It is not 'same'. Bits per byte"),
    ("07.bugs", 6, "three line numbers"),
    ("07.bugs", [5, 6, 5], "Script 1: not line 5. One name"),
    ("07.bugs", [6, 4, 5], "Script 2: not line 4. Two arguments"),
    ("07.bugs", [6, 6, None], "Script 3: not line None. One operator"),
    ("08.asserts", 3, "Give the test as text"),
    ("08.asserts", "def check(candidate):\n    candidate(2 3)\n", "is not Python"),
    ("08.asserts", "def check(candidate):\n    assert 1\n", "never calls the program"),
    ("08.asserts", "def check(candidate):\n    assert candidate([1, 2]) == 1\n", r"right solution fails.*gave 1\.5"),
    ("08.asserts", "def check(candidate):\n    assert candidate([3, 1, 2]) == 2\n", r"one of two.*\[1, 2\]"),
    ("08.asserts", "def check(candidate):\n    assert candidate([3, 1, 2, 4]) == 2.5\n", r"mean.*\[1, 2, 9\]"),
    ("08.problem", {"canonical_solution": " 2 * number + 1\n"}, "own solution"),
    ("08.problem", {"test": "def check(candidate):\n    candidate(1)\n"}, "returns None passes, too"),
    ("08.problem", {"test": "assert double(1) == 2\n"}, "defines no check"),
    ("08.problem", {"entry_point": "twice"}, "do not define the entry_point 'twice'"),
    ("09.attend", 3, "must be a function"),
    ("09.attend", lambda q, k, v: q @ k.T @ x, "attend gives no result, NameError"),  # noqa: F821
    ("09.attend", lambda q, k, v: print(end=""), r"shape \(4, 4\).*gave None"),
    ("09.attend", attending(lambda s, later: s.masked_fill(later, -math.inf).softmax(-2)), "rows of weights sum to"),
    ("09.attend", attending(lambda s, later: s.softmax(-1).masked_fill(later, 0)), "before the softmax"),
    ("09.attend", attending(lambda s, later: s.softmax(-1)), "mask is missing or turned"),
    ("09.attend", attending(lambda s, later: (2 * s).masked_fill(later, -math.inf).softmax(-1)), "divide them by √D"),
    ("09.attend", attending(lambda s, later: s.masked_fill(~later.mT, -math.inf).softmax(-1)), "has NaN"),
    ("09.attend", lambda q, k, v: attended(k, q, v), "exchanged"),
    ("09.attend", lambda q, k, v: attended(q, k, torch.eye(4).double()), "shape"),
    ("09.block", 3, "must be a function"),
    ("09.block", lambda self, x: self.ff(self.norm2(self.att(self.norm1(x)))), "it should be x"),
    ("09.block", lambda self, x: self.norm2(self.ff(y := self.norm1(x + self.att(x))) + y), "before each part"),
    ("09.block", lambda self, x: x + self.att(self.norm1(x)), "does not depend on self.norm2"),
    ("09.block", lambda self, x: x + self.att(self.norm1(x)) + self.ff(self.norm2(x)), "reads x itself"),
    ("09.block", lambda self, x: (y := x + self.ff(self.norm2(x))) + self.att(self.norm1(y)), "the order is norm1"),
    ("11.card", "limits", "Give a set, such as"),
    ("11.card", {"limits", "emoji"}, "'emoji' is none of how to load it, license, limits"),
    ("11.card", {"limits", "license"}, "The first lines name a license"),
    ("11.card", ("settings",), "The rate and the passes"),
    ("11.card", {"limits", "test text"}, "You found 2 of 3"),
    ("11.dataset", 3, r'such as "you/first-rows"; this is 3'),
    ("11.dataset", "typos", "Give its name"),
]  # fmt: skip


@pytest.mark.parametrize(("exercise_id", "stub", "measured"), [
    ("04.match", dict.fromkeys("ABC"), dict.fromkeys("ABC", "ours")),
    ("07.softer", dict.fromkeys(("hits", "confidence", "bits per byte")), None),
    ("07.bugs", [None] * 3, None), ("11.card", set(), None),
    ("08.asserts", "def check(candidate):\n    assert candidate([1, 2, 3]) == 2", None),
])  # fmt: skip
def test_unfilled_form_is_not_tried(exercise_id, stub, measured, capsys):
    assert check(exercise_id, stub, measured) is None
    assert capsys.readouterr().out == f"{exercise_id}: not tried yet\n"


@pytest.mark.parametrize(("exercise_id", "answer", "finding"), FAULTY)
def test_fault_of_an_open_answer_is_named(exercise_id, answer, finding, tokenizer, capsys):
    if isinstance(answer, dict):
        answer = all_exercises()[exercise_id].solution() | answer
    assert check(exercise_id, answer) is False
    assert re.search(finding, capsys.readouterr().out)


BEFORE = {(0, 0): 0.1, (0, 1): 0.8, (1, 0): 0.7, (1, 1): 0.2}
LOOKS = {"the token before": BEFORE, "the first token": {(0, 0): 0.05, (0, 1): 0.1, (1, 0): 0.1, (1, 1): 0.71}}
# The most surprising tokens are 5, 7 and 3, and `full` takes 10 x 20 x 500 minutes.
CHANCES = {2: 0.6, 3: 0.03, 4: 0.9, 5: 0.01, 6: 0.99, 7: 0.02, 8: 0.2, 9: 0.3, 10: 0.5, 11: 0.98}
WORK = {"laptop": SimpleNamespace(minutes=10.0, parameters=5, tokens=4)}
DROPPED = {5: 12, 10: 32}  # documents, by the limit of the rule
WORK["full"] = SimpleNamespace(minutes=math.nan, parameters=100, tokens=2000)
# Three vocabularies had 2.0, 2.4 and 2.6 characters per token, and doubling added another 0.12.
GAINS = [0.4, 0.2, 0.12]
RATES = {"A": "as it stands", "B": "fitted", "C": "ours"}
DOWN = {"hits": "same", "confidence": "down", "bits per byte": "down"}
SUMS = (-2.1, -1.8)  # of greedy's path, of the best path
ANSWERS = [0, 1] * 40
# The corner of a roofline, and for each operation its operations per byte and its height.
ROOF = {"corner": 10.0, "attention": (32.0, 2e9), "head": (57.0, 90e9), "norm": (1.0, 5e9)}
SIDES = {"attention": "arithmetic", "head": "arithmetic", "norm": "memory"}
LAST = {"seconds": 2.0, "tokens per second": 100.0, "bits per byte": 3.0}
SLOWER, LONGER, ALIKE = LAST | {"tokens per second": 50.0, "bits per byte": 2.9}, LAST | {"seconds": 2.6}, dict(LAST)
READS = {"no token, private": False, "your token, private": True}
READS |= {"no token, public": True, "mistyped token, public": False}
NAMED = {"main": "bold", "v1": "careful", "careful": "careful"}
PREDICTED = [
    ("00.surprise", 5, CHANCES, "00.surprise: right"),
    ("00.surprise", 4, CHANCES, "token before"),
    ("00.surprise", 11, CHANCES, "almost sure of token 11"),
    ("00.surprise", 8, CHANCES, "20.00%; 3 others"),
    ("00.surprise", " plt", CHANCES, "this is ' plt'"),
    ("00.scale", 100_000, WORK, "00.scale: right"),
    ("00.scale", 200, WORK, "parameters only"),
    ("00.scale", 5_000, WORK, "are multiplied"),
    ("00.scale", 10_000, WORK, "multiply it by the minutes"),
    ("00.scale", 1_667, WORK, "hours or days"),
    ("00.scale", 1e9, WORK, "more than the work says, by a factor of 10,000"),
    ("00.scale", "100 000", WORK, "this is '100 000'"),
    ("01.limit", 20, DROPPED, "01.limit: right"),
    ("01.limit", 12, DROPPED, "does not drop twice as many"),
    ("01.limit", 32, DROPPED, "how many more than at 5. 20 more go"),
    ("01.limit", 200, DROPPED, "Too many"),
    ("01.limit", 3, DROPPED, "Too few"),
    ("01.limit", "twenty", DROPPED, "this is 'twenty'"),
    ("01.limit", float("nan"), DROPPED, "Give a number of documents"),
    ("02.doubling", 0.1, GAINS, "02.doubling: right"),
    ("02.doubling", 0.2, GAINS, "the last gain or more"),
    ("02.doubling", 2.7, GAINS, "a difference"),
    ("02.doubling", -0.1, GAINS, "never stands for less text"),
    ("02.doubling", 0.0, GAINS, "added 0.12 characters per token; you said 0.00"),
    ("02.doubling", "0.1", GAINS, "this is '0.1'"),
    ("04.match", RATES, RATES, "04.match: right"),
    ("04.match", ["ours"], RATES, "Give a dictionary with the keys A, B, C"),
    ("04.match", RATES | {"A": "fitted", "B": "as it stands"}, RATES, "Whose rate stays near zero"),
    ("04.match", RATES | {"B": "ours", "C": "fitted"}, RATES, "Count the updates"),
    ("04.match", dict(zip("ABC", ("ours", "fitted", "as it stands"), strict=True)), RATES, "At least two"),
    ("04.match", RATES | {"A": "ours"}, RATES, "belongs to one curve"),
    ("04.match", RATES | {"A": "theirs"}, RATES, "no training theirs"),
    ("07.softer", DOWN, DOWN, "07.softer: right"),
    ("08.beam", [-2.12, -1.77], SUMS, "08.beam: right"),
    ("08.beam", "-2.1, -1.8", SUMS, "Give two numbers"),
    ("08.beam", (2.1, 1.8), SUMS, "are negative"),
    ("08.beam", (-1.8, -2.1), SUMS, "wrong order"),
    ("08.beam", (-0.6, -1.8), SUMS, "-0.60 is too high for the dotted path: add the four edges"),
    ("08.beam", (-2.1, -2.1), SUMS, "-2.10 is too low for the best path"),
    ("09.previous", (0, 1), LOOKS, "09.previous: right"),
    ("09.previous", (1, 1), LOOKS, "gives 71% to the first token"),
    ("09.previous", (0, 0), LOOKS, "gives 10% to the token before; another gives 80%"),
    ("09.previous", 3, LOOKS, "this is 3"),
    ("06.sentences", ANSWERS, ANSWERS, "06.sentences: right"),
    ("06.sentences", np.array(ANSWERS[:60] + [1, 1, 0, 0] * 5), ANSWERS, "06.sentences: right"),
    ("06.sentences", 3, ANSWERS, "Give a list with 0 or 1"),
    ("06.sentences", ANSWERS[:16], ANSWERS, "These are 16 answers"),
    ("06.sentences", [1] * 80, ANSWERS, "All answers are alike"),
    ("06.sentences", [0, 0, 1, 1] * 20, ANSWERS, "must not shuffle"),
    ("10.roofline", SIDES, ROOF, "10.roofline: right"),
    ("10.roofline", SIDES | {"attention": "memory"}, ROOF, "not up: a low point can be"),
    ("10.roofline", SIDES | {"head": "memory"}, ROOF, "head does 57 operations per byte, and the corner is at 10."),
    ("10.roofline", {"attention": "memory", "head": "memory", "norm": "arithmetic"}, ROOF, "the wrong way round"),
    ("10.roofline", {"norm": "memory"}, ROOF, "these names: attention, head, norm"),
    ("10.roofline", SIDES | {"norm": "bandwidth"}, ROOF, "norm has 'bandwidth'"),
    ("10.own_rung", ("slower", "better"), (LAST, SLOWER), "10.own_rung: right"),
    ("10.own_rung", ["same", "same"], (LAST, ALIKE), "10.own_rung: right"),
    ("10.own_rung", ("faster", "better"), (LAST, SLOWER), "0.50 times as many tokens"),
    ("10.own_rung", ("slower", "worse"), (LAST, SLOWER), "-0.100 bits per byte"),
    ("10.own_rung", ("slower", "better"), (LAST, LONGER), "your rung had 2.6 s, the last one 2.0"),
    ("10.own_rung", ("slower", "better"), (LAST, LAST), "fill in `my_changes`"),
    ("10.own_rung", "slower", (LAST, SLOWER), "Give two words"),
    ("10.own_rung", ("better", "slower"), (LAST, SLOWER), "'better' is none of faster, slower, same"),
    ("11.access", READS, READS, "11.access: right"),
    ("11.access", READS | {"no token, private": True}, READS, "it was refused. Private repositories are hidden"),
    ("11.access", READS | {"no token, public": False}, READS, "it was answered. Everybody may read"),
    ("11.access", READS | {"mistyped token, public": True}, READS, "A wrong token is refused"),
    ("11.access", READS | {"no token, public": "yes"}, READS, "'yes', which is none of True, False"),
    ("11.access", [True, False], READS, "these names: no token, private"),
    ("11.revision", NAMED, NAMED, "11.revision: right"),
    ("11.revision", NAMED | {"v1": "bold"}, NAMED, "v1 is careful now: a tag stays"),
    ("11.revision", NAMED | {"main": "careful"}, NAMED, "main is bold now: main is what was merged last"),
    ("11.revision", NAMED | {"careful": "bold"}, NAMED, "only a push to a branch moves it"),
    ("11.revision", NAMED | {"v1": "v1"}, NAMED, "'v1', which is none of bold, careful"),
    ("11.revision", "bold", NAMED, "these names: main, v1, careful"),
]


@pytest.mark.parametrize(("exercise_id", "answer", "measured", "finding"), PREDICTED)
def test_prediction_is_judged_by_what_was_measured(exercise_id, answer, measured, finding, capsys):
    assert check(exercise_id, answer, measured) is (": right" in finding)
    assert finding in capsys.readouterr().out
    assert check(exercise_id, None, measured) is None


@pytest.mark.parametrize("exercise_id", [id for id, exercise in all_exercises().items() if exercise.bug])
def test_the_bug_in_the_notebook_is_the_one_of_the_exercise(exercise_id, repository, capsys):
    (path,) = repository.glob(f"notebooks/{exercise_id[:2]}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (cell,) = (source for source in cells if f'check("{exercise_id}", ' in source)
    functions = [node for node in ast.parse(cell).body if isinstance(node, ast.FunctionDef)]
    own = {"math": math, "torch": torch}
    exec(ast.unparse(ast.Module(functions, [])), own)
    assert check(exercise_id, own[functions[-1].name]) is None
    assert "not tried yet" in capsys.readouterr().out
    assert not exercises._given


# --- the engine -----------------------------------------------------------------------------------------------------


def test_check_returns_what_later_cells_can_use():
    right = all_exercises()["03.pack"].solution

    def stub(token_lists, eos_id, length): ...

    def mine(*arguments):
        return right(*arguments)

    assert exercises.check("03.pack", mine) is mine
    assert [exercises.check("03.pack", answer) for answer in (stub, None, list, "text")] == [right] * 4
    assert exercises.check("01.limit", 20, DROPPED) == 20
    assert [exercises.check("01.limit", guess, DROPPED) for guess in (12, None, "twelve")] == [DROPPED] * 3


REVEALED = [
    ((None, 4.256, "%"), "Measured: 4.26 %. You made no guess."),
    ((4, 4.256, "%"), "Your guess: 4 %. Measured: 4.26 %, so you were close."),
    ((50, 4.256, "%"), "Your guess: 50 %. Measured: 4.26 %, so you were off by 45.7 %."),
    ((-0.5, 0.25, "bits"), "Your guess: -0.5 bits. Measured: 0.25 bits, so you were off by 0.75 bits."),
    ((12_000, 12_345), "Your guess: 12,000. Measured: 12,345, so you were close."),
    (("C", "A"), "Your guess: C. Measured: A."),
    (("never", "never"), "Your guess: never. Right."),
    (("a lot", 3, "%"), "Your guess: a lot. Measured: 3."),
]


@pytest.mark.parametrize(("arguments", "sentence"), REVEALED)
def test_a_guess_is_compared_with_what_was_measured(arguments, sentence, capsys):
    reveal(*arguments)
    assert capsys.readouterr().out == f"{sentence}\n"


@pytest.mark.parametrize(("setting", "shown"), [("off", False), ("OFF", False), ("on", True), ("", True)])
def test_an_instructor_can_switch_solutions_off(setting, shown, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_SOLUTIONS", setting)
    solution("03.pack")
    out = capsys.readouterr().out
    assert ("def pack(" in out) is shown
    assert ("ask your instructor" in out) is not shown


def test_results_are_kept_as_lines_of_json_and_never_stop_a_check(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_CHECKS", str(tmp_path / "checks.jsonl"))
    for answer in (None, list, all_exercises()["03.pack"].solution):
        exercises.check("03.pack", answer)
    lines = [json.loads(line) for line in (tmp_path / "checks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["exercise"], line["right"]) for line in lines] == [("03.pack", v) for v in (None, False, True)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", line["time"]) for line in lines)
    monkeypatch.setenv("COURSE_CHECKS", str(tmp_path / "no" / "folder"))
    exercises.check("03.pack", None)
    assert capsys.readouterr().out.endswith("03.pack: not tried yet\n")
