"""Exercises: the references pass, stubs and plausible wrong answers do not, and no answer can break a check."""

import argparse
import ast
import inspect
import itertools
import math
import re
import subprocess
import sys
import threading
import time
import typing
from _thread import interrupt_main

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import counterexamples, exercises
from course_utils.counterexamples import equal
from course_utils.data.corpus import COLUMNS, Location
from course_utils.exercise_catalog import all_exercises
from course_utils.exercises import Exercise, check, show, solution
from course_utils.training.losses import token_losses

TO_WRITE = sorted(id for id, exercise in all_exercises().items() if exercise.reference is not None)


@pytest.fixture(autouse=True)
def _first_try():
    exercises._tries.clear()


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(counterexamples, "SECONDS_PER_CALL", 1.0)


def lines_of(string):
    return string.splitlines()


def pack_stream(token_lists, eos_id):
    return [token for tokens in token_lists for token in [*tokens, eos_id]]


def softmax(row):
    return [math.exp(value) / sum(map(math.exp, row)) for value in row]


def bins(confidences, hits, group):
    pairs = sorted(zip(confidences, hits, strict=True), key=lambda pair: group(pair[0]))
    groups = [list(rows) for _, rows in itertools.groupby(pairs, key=lambda pair: group(pair[0]))]
    return sum(abs(sum(c for c, _ in rows) - sum(h for _, h in rows)) for rows in groups) / len(confidences)


def cut(stream, length):
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]


def first_keyword_decides(string, keywords):
    for keyword in keywords:
        return keyword in string
    return False


def letters(document):
    return sum(map(str.isalnum, document))


def verdict(keep):
    return (True, "") if keep else (False, "few letters")


def endless_cut(token_lists, eos_id, length):
    stream = pack_stream(token_lists, eos_id)
    pieces = []
    while len(stream) >= length:
        pieces.append(stream[:length])
    return pieces


def emptying_pack(token_lists, eos_id, length):
    stream = []
    while token_lists:
        stream += [*token_lists.pop(0), eos_id]
    return cut(stream, length)


# What learners write at first, and what the answer to it must show: the failing input, or what came out.
WRONG = {
    "00.share": [
        (lambda part, whole: 100 * part / whole, "ZeroDivisionError"),
        (lambda part, whole: part / whole if whole else 0.0, r"got       0\.\d+|got       1\.0"),
        (lambda part, whole: 100 * whole / part if part else 0.0, r"share\(1, "),
    ],
    "01.keyword": [
        (first_keyword_decides, r"any_keyword_in_string\('(\w+)', \['(?!\1)\w+', '\1'"),
        (lambda string, keywords: all(keyword in string for keyword in keywords), "got       False|got       True"),
        (lambda string, keywords: any(word in keywords for word in string.split()), "expected  True"),
        (lambda string, keywords: any(k in string.lower() for k in keywords), "expected  False"),
        (lambda string, keywords: any(string in keyword for keyword in keywords), "any_keyword_in_string"),
        (lambda string, keywords: [k for k in keywords if k in string], "expected is of type bool"),
    ],
    "01.import": [
        (lambda string, modules: any(module in string for module in modules), "expected  False"),
        (
            lambda string, modules: any(line.startswith(f"import {m}") for line in lines_of(string) for m in modules),
            "expected  (True|False)",
        ),
        (
            lambda string, modules: any(f"import {m}" in string or f"from {m}" in string for m in modules),
            "expected  False",
        ),
        (
            lambda string, modules: any(re.search(rf"^(import|from) {m}\b", string, re.M) for m in modules),
            r"imports_any\('\s",
        ),
        (
            lambda string, modules: any(re.search(rf"^\s*(import|from) {m}", string, re.M) for m in modules),
            r"imports_any\('.*(import|from) \w+_",
        ),
    ],
    "01.clean": [
        (lambda document: letters(document) >= 0.25 * len(document), "expected is of type tuple"),
        (lambda document: verdict(letters(document) / len(document) >= 0.25), "ZeroDivisionError"),
        (lambda document: verdict(letters(document) > 0.25 * len(document)), r"few_letters\(''\)"),
        (lambda document: verdict(sum(map(str.isalpha, document)) >= 0.25 * len(document)), r"few_letters\('1'\)"),
        (lambda document: verdict(letters(document.strip()) >= 0.25 * len(document.strip())), r"(\\n| )"),
        (lambda document: verdict(len(re.findall(r"\w", document)) >= 0.25 * len(document)), r"few_letters\('_'\)"),
        (lambda document: verdict(letters(document) >= 0.25 * len(document))[::-1], r"got       \('', True\)"),
    ],
    "02.single_tokens": [
        (lambda encode, words: [word for word in words if len(word) == 1], r"where     encode\("),
        (lambda encode, words: [encode(word)[0] for word in words if len(encode(word)) == 1], r"got       \[\d+"),
        (lambda encode, words: [w for w in words if len(encode(w.strip())) == 1], r"single_tokens\(encode, \['"),
        (lambda encode, words: sorted({w for w in words if len(encode(w)) == 1}), "single_tokens"),
        (lambda encode, words: [w for w in words if len(encode(w)) <= 1], r"encode\(''\) = \[\]"),
    ],
    "02.characters_per_token": [
        (lambda encode, texts: sum(len(t) / max(len(encode(t)), 1) for t in texts) / len(texts), "encode"),
        (lambda encode, texts: sum(len(encode(t)) for t in texts) / sum(map(len, texts)), r"got       "),
        (lambda encode, texts: sum(len(t.encode()) for t in texts) / sum(len(encode(t)) for t in texts), "é|ü|日|本"),
        (lambda encode, texts: sum(map(len, texts)) // sum(len(encode(t)) for t in texts), r"got       \d+\n"),
    ],
    "03.pack": [
        (lambda token_lists, eos_id, length: cut(list(itertools.chain(*token_lists)), length), r"pack\(\[\["),
        (lambda token_lists, eos_id, length: cut(pack_stream(token_lists, eos_id)[:-1], length), r"got       \[\]"),
        (
            lambda token_lists, eos_id, length: [
                stream[i : i + length]
                for stream in [pack_stream(token_lists, eos_id)]
                for i in range(0, len(stream), length)
            ],
            r"expected  \[\]",
        ),
        (
            lambda token_lists, eos_id, length: [p for tokens in token_lists for p in cut([*tokens, eos_id], length)],
            r"pack\(\[\[",
        ),
        (endless_cut, "still running"),
        (emptying_pack, r"changed its input into \(\[\], "),
    ],
    "03.share_lost": [
        (lambda token_counts, length: sum(c % length for c in token_counts), r"share_lost\(\["),
        (lambda token_counts, length: sum(c % length / c for c in token_counts) / len(token_counts), r"share_lost\(\["),
        (lambda token_counts, length: sum(token_counts) % length / sum(token_counts), r"share_lost\(\[\d+, \d+\], "),
        (
            lambda token_counts, length: sum(c % length for c in token_counts if c > length) / sum(token_counts),
            r"got       0\.0",
        ),
    ],
    "04.bits_per_byte": [
        (lambda loss, tokens, num_bytes: loss * tokens / num_bytes, r"bits_per_byte\("),
        (lambda loss, tokens, num_bytes: loss / math.log(2), r"bits_per_byte\("),
        (lambda loss, tokens, num_bytes: loss * num_bytes / tokens / math.log(2), r"bits_per_byte\("),
        (lambda loss, tokens, num_bytes: loss * tokens / num_bytes * math.log(2), r"got       0\."),
    ],
    "04.first_block": [
        (lambda string: string.split("\n")[0].rstrip(), r"first_block\('.*\\n"),
        (lambda string: re.split("\nclass|\ndef|\n#|\n@|\nprint|\nif", string)[0], r"first_block\('[ \\n]+'\)"),
        (lambda string: re.split("class|def|#|@|print|if", string)[0].rstrip(), r"first_block\('#|first_block\(' *if"),
        (lambda string: re.split("\nclass|\ndef", string)[0].rstrip(), r"first_block\('.*\\n(#|@|if|print)"),
        (lambda string: re.split("\nclass|\ndef|\n#|\n@|\nprint|\nif", string)[0].strip(), "first_block"),
    ],
    "05.row_weights": [
        (lambda rows, keys, alpha: [1 + alpha * len(set(row) & set(keys)) for row in rows], r"row_weights\(\[\["),
        (lambda rows, keys, alpha: [alpha * (1 + sum(t in keys for t in row)) for row in rows], r"expected  \[1\.0"),
        (lambda rows, keys, alpha: [1 + alpha * any(t in keys for t in row) for row in rows], r"row_weights\(\[\["),
        (lambda rows, keys, alpha: [1 + sum(t in keys for t in row) for row in rows], r"expected  \["),
        (lambda rows, keys, alpha: [1 + alpha * sum(t in keys for t in row[1:]) for row in rows], r"row_weights\("),
    ],
    "05.steps_per_pass": [
        (lambda rows, batch, processes, k: rows // (batch * processes * k), r"expected  \d+"),
        (lambda rows, batch, processes, k: math.ceil(rows / (batch * k)), r"steps_per_pass\("),
        (lambda rows, batch, processes, k: math.ceil(rows / (batch * processes)), r"steps_per_pass\("),
        (lambda rows, batch, processes, k: rows / (batch * processes * k), r"got       \d+\.\d"),
        (lambda rows, batch, processes, k: math.ceil(rows / (batch * processes)) // k, r"steps_per_pass\("),
    ],
    "06.f1": [
        (lambda p, r: sum(map(int.__eq__, p, r)) / len(p), r"f1\(\["),
        (lambda p, r: sum(map(int.__and__, p, r)) / max(1, sum(p)), r"f1\(\["),
        (lambda p, r: 2 * sum(map(int.__and__, p, r)) / (sum(p) + sum(r)), "ZeroDivisionError"),
        (lambda p, r: 2 * sum(map(int.__eq__, p, r)) / (len(p) + sum(p)), r"expected  0"),
    ],
    "06.share_padded": [
        (lambda lengths, size: 1 - sum(lengths) / (max(lengths) * len(lengths)), r"share_padded\(\["),
        (lambda lengths, size: sum(lengths) / sum(max(lengths[i : i + size]) * size
                                                  for i in range(0, len(lengths), size)), r"share_padded\(\["),
        (lambda lengths, size: 1 - sum(lengths) / sum(max(lengths[i : i + size]) * size
                                                      for i in range(0, len(lengths), size)), r"expected  0"),
        (lambda lengths, size: sum(max(lengths) - n for n in lengths) / sum(lengths), r"share_padded\(\["),
    ],
    "07.pass_at_k": [
        (lambda n, c, k: 1 - (1 - c / n) ** k, r"estimate_pass_at_k\("),
        (lambda n, c, k: c / n, r"estimate_pass_at_k\("),
        (lambda n, c, k: 1 - math.comb(c, k) / math.comb(n, k), r"estimate_pass_at_k\("),
        (lambda n, c, k: math.comb(n - c, k) / math.comb(n, k), r"estimate_pass_at_k\("),
        (lambda n, c, k: 1.0 if c else 0.0, r"expected  0\.\d"),
    ],
    "07.calibration_error": [
        (lambda sure, hits: abs(sum(sure) - sum(hits)) / len(sure), r"calibration_error\(\["),
        (lambda sure, hits: sum(abs(s - h) for s, h in zip(sure, hits, strict=True)) / len(sure), "calibration_error"),
        (lambda sure, hits: bins(sure, hits, lambda s: int(s * 5)), r"calibration_error\(\["),
        (lambda sure, hits: bins(sure, hits, lambda s: int(s * 10)) / 10, r"calibration_error\(\["),
        (lambda sure, hits: bins(sure, hits, lambda s: int(s * 10)), r"1\.0"),
        (lambda sure, hits: bins([min(int(s * 10), 9) / 10 + 0.05 for s in sure], hits, lambda s: s), r"\(\["),
    ],
    "08.attention_weights": [
        (lambda scores: [softmax(row) for row in scores], r"attention_weights\(\[\["),
        (lambda scores: [[w if j <= i else 0.0 for j, w in enumerate(softmax(row))]
                         for i, row in enumerate(scores)], r"attention_weights\(\[\["),
        (lambda scores: [[*softmax(row[:i]), *[0.0] * (len(row) - i)] for i, row in enumerate(scores)], r"expected"),
        (lambda scores: [softmax(row[: i + 1]) for i, row in enumerate(scores)], r"attention_weights\(\[\["),
    ],
    "08.top_p": [
        (lambda probs, p: [i for i, q in enumerate(probs) if q >= p], r"top_p\(\["),
        (lambda probs, p: sorted(range(len(probs)), key=lambda i: -probs[i]), r"top_p\(\["),
        (lambda probs, p: [i for n, i in enumerate(sorted(range(len(probs)), key=lambda i: -probs[i]))
                           if sum(sorted(probs)[::-1][: n + 1]) < p], r"got       \[\]"),
        (lambda probs, p: [i for i in range(len(probs)) if sum(probs[:i]) < p - 1e-9], r"top_p\(\["),
    ],
    "08.parameters": [
        (lambda v, t, c, n: v * c + t * c + n * 12 * c * c, r"parameters\("),
        (lambda v, t, c, n: 2 * v * c + t * c + n * (12 * c * c + 13 * c) + 2 * c, r"parameters\("),
        (lambda v, t, c, n: v * c + t * c + n * (12 * c * c + 13 * c), r"parameters\("),
        (lambda v, t, c, n: v * c + t * c + n * (12 * c * c + 9 * c) + 2 * c, r"parameters\("),
    ],
}  # fmt: skip


@pytest.mark.parametrize("exercise_id", TO_WRITE)
def test_reference_passes(exercise_id, capsys):
    assert check(exercise_id, all_exercises()[exercise_id].load_reference()) is True
    assert re.match(rf"{exercise_id}: right \(2\d\d inputs", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("exercise_id", "answer", "message"), [(id, *wrong) for id, answers in WRONG.items() for wrong in answers]
)
@pytest.mark.usefixtures("_impatient")
def test_wrong_answer_is_shown_its_mistake(exercise_id, answer, message, capsys):
    assert check(exercise_id, answer) is False
    out = capsys.readouterr().out
    assert re.search(message, out), out
    assert all(part in out for part in ("not right yet", "  got ", "  expected ")), out
    assert len(out) < 700  # a small input, not the first one that differed


def test_every_exercise_has_wrong_answers():
    assert {id for id, answers in WRONG.items() if len(answers) >= 3} == set(TO_WRITE)


def stub_dots(*arguments): ...


def stub_pass(*arguments):
    pass


def stub_docstring(*arguments):
    """Do something."""


def stub_raises(*arguments):
    raise NotImplementedError


def stub_returns_dots(*arguments):
    return ...


@pytest.mark.parametrize("stub", [None, ..., stub_dots, stub_pass, stub_docstring])
def test_untouched_stub_of_an_open_exercise(stub, capsys):
    assert check("05.own_loss", stub) is None
    assert "not tried yet" in capsys.readouterr().out


@pytest.mark.parametrize("exercise_id", TO_WRITE)
@pytest.mark.parametrize("stub", [None, ..., stub_dots, stub_pass, stub_docstring, stub_raises, stub_returns_dots])
def test_untouched_stub(exercise_id, stub, capsys):
    assert check(exercise_id, stub) is None
    assert capsys.readouterr().out.startswith(f"{exercise_id}: not tried yet")
    assert not exercises._tries


def test_forgotten_return_is_said(capsys):
    def pack(token_lists, eos_id, length):
        cut(pack_stream(token_lists, eos_id), length)

    assert check("03.pack", pack) is None
    assert "is `return` missing?" in capsys.readouterr().out


def test_hints_come_one_by_one_and_start_again_after_success(capsys):
    hints = all_exercises()["04.bits_per_byte"].hints
    seen = []
    for _ in range(len(hints) + 2):
        check("04.bits_per_byte", lambda loss, tokens, num_bytes: loss)
        seen.append(capsys.readouterr().out)
    assert "Hint" not in seen[0]
    assert all(f"Hint {i} of {len(hints)}: {hint}" in seen[i] for i, hint in enumerate(hints, 1))
    assert 'solution("04.bits_per_byte")' in seen[-1]
    check("04.bits_per_byte", all_exercises()["04.bits_per_byte"].load_reference())
    capsys.readouterr()
    check("04.bits_per_byte", lambda loss, tokens, num_bytes: loss)
    assert "Hint" not in capsys.readouterr().out


def test_the_smallest_input_is_found(capsys):
    def longest_wins(string):
        return "" if len(string) > 30 else all_exercises()["04.first_block"].load_reference()(string)

    check("04.first_block", longest_wins)
    shown_input = re.search(r"first_block\((.*)\)\n", capsys.readouterr().out)[1]
    assert 31 <= len(eval(shown_input)) <= 33


def test_exception_names_its_line(capsys):
    def first_block(string):
        return string.split("\n")[5]

    check("04.first_block", first_block)
    out = capsys.readouterr().out
    assert "IndexError: list index out of range" in out
    assert 'return string.split("\\n")[5]' in out


def test_own_prints_are_kept_for_the_failing_input(capsys):
    def first_block(string):
        print("seen", string)
        return string

    check("04.first_block", first_block)
    assert capsys.readouterr().out.count("seen") == 1


class Hostile:
    def __repr__(self):
        raise SystemExit("no")

    __str__ = __eq__ = __bool__ = __len__ = __iter__ = __repr__
    __hash__ = None


class AlwaysEqual:
    def __eq__(self, other):
        return True

    __hash__ = None


class HostileError(Exception):
    __str__ = Hostile.__repr__


def raising(error):
    def function(*arguments):
        raise error

    return function


def forever(*arguments):
    return itertools.count()


def deep(*arguments):
    return deep(*arguments)


HOSTILE = [
    raising(HostileError()),
    raising(SystemExit(0)),
    raising(GeneratorExit()),
    deep,
    forever,
    lambda *a: (x for x in itertools.count()),
    lambda *a: Hostile(),
    lambda *a: AlwaysEqual(),
    lambda *a: [AlwaysEqual()],
    lambda *a: float("nan"),
    lambda *a: np.array([Hostile()], dtype=object),
    lambda a: a,
    lambda: 1,
    lambda *a: [a.append(a) for a in a if isinstance(a, list)] or 0,
    type,
    Hostile,
    Hostile(),
    print,
    dict,
    3,
    "text",
]


@pytest.mark.parametrize("exercise_id", TO_WRITE)
def test_hostile_answers_never_raise_and_never_pass(exercise_id, capsys):
    for answer in HOSTILE:
        assert check(exercise_id, answer) in (False, None)
        assert capsys.readouterr().out.startswith(f"{exercise_id}: ")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Hostile),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=5,
)


@settings(max_examples=25)
@given(exercise_id=st.sampled_from(TO_WRITE), value=VALUES, results=st.lists(VALUES, min_size=1, max_size=3))
def test_no_value_and_no_constant_function_raises(exercise_id, value, results):
    turns = itertools.cycle(results)
    assert check(exercise_id, value) is not True
    assert check(exercise_id, lambda *arguments: next(turns)) in (True, False, None)


@pytest.mark.usefixtures("_impatient")
def test_endless_answer_is_stopped_and_the_users_interrupt_passes(capsys):
    def endless(string):
        while True:
            pass

    start = time.monotonic()
    assert check("04.first_block", endless) is False
    assert time.monotonic() - start < 15
    assert "still running after 1 second" in capsys.readouterr().out
    timer = threading.Timer(0.5, interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        check("04.first_block", endless)
    timer.join()


def test_arrays_and_tuples_count_as_lists():
    reference = all_exercises()["03.pack"].load_reference()

    def pack(token_lists, eos_id, length):
        return tuple(np.array(row) for row in reference(token_lists, eos_id, length)[0])

    assert check("03.pack", pack) is True
    assert equal(np.float32(0.5), 0.5)
    assert equal(np.True_, True)
    assert not equal(1, True)
    assert not equal(True, 1)
    assert not equal([1], [1, 2])


def test_unknown_exercise_lists_the_known_ones():
    for function in (lambda: check("03.pakc", None), lambda: solution("03.pakc")):
        with pytest.raises(ValueError, match=r"no exercise '03\.pakc'; there are 00\.share.*03\.pack"):
            function()


def test_solution_and_show_print_sources(capsys):
    for exercise_id, exercise in all_exercises().items():
        solution(exercise_id)
        assert f"def {exercise.name}(" in capsys.readouterr().out
    show(cut)
    assert capsys.readouterr().out.startswith("def cut(stream, length):\n    return [stream")
    with pytest.raises(ValueError, match="written in Python"):
        show(len)


def test_catalogue_costs_nothing(repository):
    code = (
        "import sys, course_utils.exercise_catalog as c; c.all_exercises(); print({'torch', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "pack", "reference": cut, "examples": ((1,),)}, "notebook's number"),
        ({"id": "03.pack"}, "either a reference or"),
        ({"id": "03.pack", "reference": cut, "examine": cut}, "either a reference or"),
        ({"id": "03.pack", "reference": cut}, "at least one example"),
    ],
)
def test_catalogue_entries_are_validated(fields, message):
    with pytest.raises(ValueError, match=message):
        Exercise(title="", hints=(), **fields)


def write_corpus(folder, column="content", **splits):
    for split, contents in splits.items():
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {name: [name] * len(contents) for name in COLUMNS if name != "content"}
        Dataset.from_dict(columns | {column: contents}).to_parquet(path)
    return folder


def real_code():
    """Return the sources of some modules of the standard library."""
    return [inspect.getsource(module) for module in (argparse, ast, typing, inspect)]


@pytest.fixture
def _own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("_own_home")
def test_own_corpus_that_is_fine(tmp_path, capsys):
    *train, validation = real_code()
    folder = write_corpus(tmp_path / "set", train=train, validation=[validation])
    for number, code in enumerate(real_code()):
        (tmp_path / "repositories" / f"project{number}").mkdir(parents=True)
        (tmp_path / "repositories" / f"project{number}" / "module.py").write_text(code, encoding="utf-8")
    for value in (str(folder), folder, Location(str(folder)), tmp_path / "repositories"):
        assert check("04.own_corpus", value) is True
    assert check("04.own_corpus", None) is None
    assert "not tried yet" in capsys.readouterr().out


@pytest.mark.usefixtures("_own_home")
def test_own_corpus_with_faults(tmp_path, capsys):
    code = real_code()
    faulty = {
        "1 files are in both splits": write_corpus(tmp_path / "both", train=code, validation=code[:1]),
        "take at least 100,000": write_corpus(tmp_path / "short", train=["x = 1\n"], validation=["y = 2\n"]),
        "'validation' has no text": write_corpus(tmp_path / "empty", train=code, validation=[""]),
        "has no split 'validation'": write_corpus(tmp_path / "one", train=code),
        "no `content`": write_corpus(tmp_path / "column", column="text", train=code, validation=code),
        "does not exist": tmp_path / "missing",
        "cannot be opened": 3,
    }
    for message, folder in faulty.items():
        assert check("04.own_corpus", folder) is False
        assert message in capsys.readouterr().out


def mean_of_rows(labels, logits):
    return token_losses(labels, logits)[:, :-1].mean()


def focal(labels, logits):
    each = token_losses(labels, logits)[:, :-1]
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


def unrelated(labels, logits):
    return torch.ones(3, requires_grad=True).sum() - logits.detach().abs().max() * 1e-3


@pytest.mark.parametrize(
    ("loss", "finding"),
    [
        (lambda labels, logits: torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "t \\+ 1"),
        (lambda labels, logits: token_losses(labels, logits), r"torch.Size\(\[3, 8\]\)"),
        (lambda labels, logits: mean_of_rows(labels, logits).item(), "float"),
        (lambda labels, logits: mean_of_rows(labels, logits).detach(), "no gradient"),
        (lambda labels, logits: mean_of_rows(labels, logits) / 0, "finite number"),
        (lambda labels, logits: -mean_of_rows(labels, logits), "should be smaller"),
        (lambda labels, logits: mean_of_rows(logits, labels), "raises"),
        (lambda labels, logits: token_losses(labels, logits).sum(), r"62\.91 instead of ln 20 = 3\.00"),
        (lambda labels, logits: token_losses(labels, logits).mean(), r"2\.62 instead of ln 20"),
        (lambda labels, logits: -logits.mean(), "instead of ln 20"),
        (unrelated, "does not depend on the logits"),
    ],
)
def test_own_loss(loss, finding, capsys):
    for right in (mean_of_rows, focal):
        assert check("05.own_loss", right) is True
    assert check("05.own_loss", loss) is False
    assert re.search(finding, capsys.readouterr().out.partition("What to look at")[2])


def test_own_log(tmp_path, capsys):
    from torch.utils.tensorboard import SummaryWriter

    assert check("05.own_log", tmp_path) is False
    for steps, expected in ((1, False), (2, True)):
        with SummaryWriter(str(tmp_path / str(steps) / "run")) as writer:
            for step in range(steps):
                writer.add_scalar("loss", 1.0, step)
        assert check("05.own_log", tmp_path / str(steps)) is expected
    said = capsys.readouterr().out
    assert "has no files of TensorBoard" in said
    assert "two different steps" in said


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, None),
        ({"canonical_solution": "    return 2 * number + 1\n"}, "own solution fails its test"),
        ({"test": "def check(candidate):\n    candidate(1)\n"}, "returns None passes, too"),
        ({"test": "assert double(1) == 2\n"}, "defines no check"),
        ({"entry_point": "twice"}, "do not define the entry_point 'twice'"),
        ({"prompt": 3}, "prompt is 3"),
    ],
)
def test_a_problem_of_your_own_is_run(changes, finding, capsys):
    problem = {
        "task_id": "mine/0",
        "prompt": 'def double(number):\n    """Return twice the number."""\n',
        "entry_point": "double",
        "canonical_solution": "    return 2 * number\n",
        "test": "def check(candidate):\n    assert candidate(4) == 8\n    assert candidate(0) == 0\n",
    }
    assert check("07.problem", problem | changes) is (finding is None)
    assert (finding or "everything that can be checked is there") in capsys.readouterr().out


@pytest.mark.parametrize(
    "group",
    [
        lambda s: min(np.digitize(s, np.linspace(0, 1, 11)), 10),
        lambda s: min(np.digitize(s, np.arange(0, 1.1, 0.1)), 10),
        lambda s: min(math.floor(s / 0.1), 9),
        lambda s: next(i for i in range(10) if s < 0.1 * (i + 1) or i == 9),
    ],
)
def test_confidences_may_be_grouped_in_every_right_way(group):
    assert check("07.calibration_error", lambda sure, hits: bins(sure, hits, group)) is True
