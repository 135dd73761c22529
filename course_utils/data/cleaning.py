"""Cleaning rules: every rule looks at one document and says keep or drop, and every drop has a reason.

Nothing here is random: the same document gets the same answer on every machine and in every order.
Source: the cleaning steps and limits of the CodeParrot scripts; the test rule counts words, not letters ("latest").
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import datasets
from tqdm.auto import tqdm

from course_utils.data.documents import is_user_style

_ROWS_AT_ONCE = 1000
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


@dataclass(frozen=True)
class Document:
    """What a rule may look at."""

    text: str
    path: str = ""

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends."""
        return self.text.splitlines()


@dataclass(frozen=True)
class Rule:
    """One reason to drop a document; `dataclasses.replace(rule, limit=…)` gives a stricter or a milder one."""

    name: str
    why: str
    breaks: Callable[[Document, float], bool]
    limit: float = 0
    # Share of the documents breaking the rule that stay all the same, chosen by a hash of their text, from 0 to 1.
    spared: float = 0.0

    def drops(self, document: Document) -> bool:
        """Say whether the document breaks the rule and is not among the spared ones."""
        if not self.breaks(document, self.limit):
            return False
        digest = hashlib.sha256(f"{self.name}\n{document.text}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") >= self.spared * 2**64


def _has_long_line(document: Document, limit: float) -> bool:
    return max(map(len, document.lines), default=0) > limit


def _has_long_mean_line(document: Document, limit: float) -> bool:
    return sum(map(len, document.lines)) > limit * len(document.lines)


def _has_few_letters(document: Document, limit: float) -> bool:
    return len(_NOT_ALPHANUMERIC.sub("", document.text)) < limit * len(document.text)


def _says_generated(document: Document, limit: float) -> bool:
    return _GENERATED.search("\n".join(document.lines[: int(limit)])) is not None


def _is_test_or_config(document: Document, limit: float) -> bool:
    # At least two words, so that one mention in a short file does not make it a test.
    most = max(1, limit * len(document.lines))
    words = (len(pattern.findall(document.text)) for pattern in (_TEST_WORD, _CONFIG_WORD))
    return _TEST_PATH.search(document.path) is not None or any(count > most for count in words)


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
    Rule(
        "few assignments",
        "Under 5 assignments there is little that is computed.",
        lambda document, limit: len(_ASSIGNMENT.findall(document.text)) < limit,
        5,
    ),
)


def characters_per_token_rule(tokenizer: Any, limit: float = 1.5) -> Rule:
    """Give the rule that drops what the tokenizer cuts into pieces shorter than `limit` characters on average.

    `tokenizer` is anything whose `encode(text)` has a length: of transformers, tokenizers or tiktoken.
    """
    return Rule(
        "few characters per token",
        "Text that the tokenizer can hardly compress is unlike the code it was trained on.",
        lambda document, limit: len(document.text) < limit * len(tokenizer.encode(document.text)),
        limit,
    )


def clean(document: str | None, path: str = "", rules: Iterable[Rule] = RULES) -> Decision:
    """Decide whether a document stays: the first rule it breaks is the reason to drop it.

    A missing document (None) counts as empty.
    """
    seen = Document(document or "", path or "")
    return next((Decision(False, rule.name) for rule in rules if rule.drops(seen)), Decision(True))


def check_dataset(dataset: datasets.Dataset, column: str) -> None:
    """Raise ValueError if this is no map-style data set with that column."""
    if not isinstance(dataset, datasets.Dataset):
        raise ValueError(
            f"got {type(dataset).__name__}, and need a datasets.Dataset: one split of a DatasetDict, what "
            "filter_streaming_dataset keeps of a stream, or datasets.Dataset.from_list(rows)"
        )
    if column not in dataset.column_names:
        raise ValueError(f"no column {column!r} among {dataset.column_names}; name the text with column=")


def clean_dataset(
    dataset: datasets.Dataset,
    rules: Iterable[Rule] = RULES,
    *,
    column: str = "content",
    path_column: str = "path",
    show_progress: bool = True,
) -> tuple[datasets.Dataset, Counter[str]]:
    """Keep the documents that break no rule, in order, and count the others by reason, the most frequent first.

    Raises ValueError when this is no data set with that text column; without a path column, rules judge the text alone.
    """
    check_dataset(dataset, column)
    rules, kept, reasons = tuple(rules), [], Counter()
    columns = [name for name in (column, path_column) if name in dataset.column_names]
    batches = dataset.select_columns(columns).with_format("arrow").iter(batch_size=_ROWS_AT_ONCE)
    with tqdm(total=len(dataset), desc="Cleaning", unit=" documents", disable=not show_progress) as bar:
        for number, table in enumerate(batches):
            paths = table[path_column].to_pylist() if path_column in columns else [""] * len(table)
            for row, (text, path) in enumerate(zip(table[column].to_pylist(), paths, strict=True)):
                decision = clean(text, path, rules)
                if decision.keep:
                    kept.append(number * _ROWS_AT_ONCE + row)
                else:
                    reasons[decision.reason] += 1
            bar.update(len(table))
    return dataset.select(kept), Counter(dict(reasons.most_common()))


# The rule on structure is left out: it drops every short plotting script, and those are what a learner writes.
TRAINING_RULES = tuple(rule for rule in RULES if rule.name != "no structure")


def sample_library(dataset: datasets.Dataset, share: float) -> datasets.Dataset:
    """Keep every user-style document, and a library document if its checksum falls into `share` (between 0 and 1).

    The choice depends on the text alone, so it is the same on every machine and in any order.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of library documents is {share}; it must lie between 0 and 1.")
    if share == 1:
        return dataset
    limit = int(share * 2**64)

    def keep(batch):
        return [
            is_user_style(path) or int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) < limit
            for path, text in zip(batch["path"], batch["content"], strict=True)
        ]

    return dataset.filter(keep, batched=True, keep_in_memory=False)
