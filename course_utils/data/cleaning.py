"""Cleaning rules: pure functions of one document that keep or drop it, and every drop has a reason.

Source: the cleaning steps and limits of the CodeParrot scripts; the test rule counts words, not letters ("latest").
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import datasets
from tqdm.auto import tqdm

from course_utils.data.deduplication import content_hash
from course_utils.data.documents import kind_of

_GENERATED = re.compile(r"auto-?generated|automatically generated", re.IGNORECASE)
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# A folder or a module of that name, or one that starts or ends with it as pytest expects; not "latest.py".
_TEST_PATH = re.compile(
    r"(?:^|[/\\])(?:(?:tests?|config)[/\\]|(?:test_[^/\\]*|(?:[^/\\]*_)?(?:tests?|config)|conftest)\.py$)",
    re.IGNORECASE,
)
# Definitions and frameworks, not the bare word: `X_test` and "test set" stand in most scripts that fit a model.
_TEST_WORD = re.compile(r"\b(?:def|class)[ \t]+_?test\w*|\b(?:unittest|pytest)\b", re.IGNORECASE)
_CONFIG_WORD = re.compile(r"\bconfig(?:s|uration|urations)?\b", re.IGNORECASE)
_STRUCTURE = re.compile(r"^[^#\n]*\b(?:def|class|for|while)\b", re.MULTILINE)
# A name, attribute, item or tuple at the start of a line, then `=` or `+=` and its kind, but no comparison.
_ASSIGNMENT = re.compile(r"^[ \t]*[A-Za-z_][^=!<>\n(#]*(?:<<|>>)?=(?!=)", re.MULTILINE)


class Decision(NamedTuple):
    """Whether a document stays, and otherwise the name of the first rule it breaks."""

    keep: bool
    reason: str = ""


class Judged(NamedTuple):
    """What a rule may look at; lines come without their ends."""

    text: str
    path: str
    lines: list[str]


class Rule(NamedTuple):
    """One reason to drop a document; `rule._replace(limit=…)` makes a stricter or a milder one."""

    name: str
    why: str
    breaks: Callable[[Judged, float], bool]
    limit: float = 0
    spares: str = ""  # the kind of document that never breaks it


def _has_long_line(document: Judged, limit: float) -> bool:
    return max(map(len, document.lines), default=0) > limit


def _has_long_mean_line(document: Judged, limit: float) -> bool:
    return sum(map(len, document.lines)) > limit * len(document.lines)


def _has_few_letters(document: Judged, limit: float) -> bool:
    return len(_NOT_ALPHANUMERIC.sub("", document.text)) < limit * len(document.text)


def _says_generated(document: Judged, limit: float) -> bool:
    return _GENERATED.search("\n".join(document.lines[: int(limit)])) is not None


def _is_test_or_config(document: Judged, limit: float) -> bool:
    # At least two words, so that one mention in a short file does not make it a test.
    most = max(1, limit * len(document.lines))
    words = (len(pattern.findall(document.text)) for pattern in (_TEST_WORD, _CONFIG_WORD))
    return _TEST_PATH.search(document.path) is not None or any(count > most for count in words)


def _has_few_assignments(document: Judged, limit: float) -> bool:
    return len(_ASSIGNMENT.findall(document.text)) < limit


RULES: tuple[Rule, ...] = (
    Rule("empty", "There is nothing to learn from.", lambda document, _: not document.text.strip()),
    Rule("long line", "A line of over 1 000 characters is data or minified code.", _has_long_line, 1000),
    Rule("long lines on average", "Over 100 characters a line on average is rarely typed.", _has_long_mean_line, 100),
    Rule("few letters", "Under 25 % letters and digits is a table, a drawing or a mask.", _has_few_letters, 0.25),
    Rule("generated", "The first 5 lines say that a program wrote the file.", _says_generated, 5),
    Rule("test or config", "Tests and settings repeat themselves: by path or 1 line in 20.", _is_test_or_config, 0.05),
    Rule(
        "no structure",
        "Without def, class, for or while it is often a list of names; short plotting scripts break it too.",
        lambda document, _: _STRUCTURE.search(document.text) is None,
    ),
    Rule("few assignments", "Under 5 assignments there is little that is computed.", _has_few_assignments, 5),
)
# No rule on structure: it drops every short plotting script, and those are what a learner writes; they need not assign
# much either. Tests of what the keyword filter let through have a share of their own (`sample_kinds`).
_SPARED = {"few assignments": "user", "test or config": "tests"}
TRAINING_RULES = tuple(
    rule._replace(spares=_SPARED.get(rule.name, "")) for rule in RULES if rule.name != "no structure"
)


def clean(document: str | None, path: str | None = "", rules: Iterable[Rule] = RULES) -> Decision:
    """Decide whether a document stays; the reason is the first rule it breaks. A missing one (None) counts as empty."""
    text = document or ""
    seen, kind = Judged(text, path or "", text.splitlines()), kind_of(path or "")
    broken = (rule.name for rule in rules if rule.spares != kind and rule.breaks(seen, rule.limit))
    return next((Decision(False, name) for name in broken), Decision(True))


def can_be_held_out(document: str, path: str) -> bool:
    """Return whether a document passes the rules for training and is not a test, of which none is held out."""
    return kind_of(path) != "tests" and clean(document, path, TRAINING_RULES).keep


def clean_dataset(dataset: datasets.Dataset, rules: Iterable[Rule] = RULES) -> tuple[datasets.Dataset, Counter[str]]:
    """Keep the documents that break no rule, in order, and count the others by reason, the most frequent first."""
    rows, rules = tqdm(dataset.select_columns(["content", "path"]), "Cleaning", unit=" documents"), tuple(rules)
    decisions = [clean(row["content"], row["path"], rules) for row in rows]
    reasons = Counter(decision.reason for decision in decisions if not decision.keep)
    kept = [number for number, decision in enumerate(decisions) if decision.keep]
    return dataset.select(kept), Counter(dict(reasons.most_common()))


def sample_kinds(dataset: datasets.Dataset, **shares: float) -> datasets.Dataset:
    """Keep a document if its checksum falls into its kind's share, from 0 to 1, if that has one."""

    def keep(path: str | None, text: str) -> bool:
        share = shares.get(kind_of(path or ""), 1)
        return share == 1 or int(content_hash(text)[:16], 16) < int(share * 2**64)

    return dataset.filter(keep, input_columns=["path", "content"])
