"""The gettext catalogs of a language: read, brought up to date with the English text, written.

A message is current, fuzzy (its English changed; the text before the change stands beside it), missing, or obsolete.
Only current messages are shown to anybody. What tools for translators change in a file (order, line breaks, line ends,
headers) is no change.
"""

import codecs
import copy
import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import polib

WIDTH = 79
STATES = ("current", "fuzzy", "missing")
SIMILAR = 0.6  # share of equal words from which a changed text counts as the same message
_LINE = re.compile(r'(?:#~ ?)?(?:#?\|? ?)?(?:(?:msgid|msgstr|msgctxt)(?:\[\d\])? )?"(?:[^"\\]|\\.)*"\s*\Z')


class Message(NamedTuple):
    """An English text with its kinds ("heading") and the cells or modules where it stands."""

    text: str
    kinds: tuple[str, ...]
    places: tuple[str, ...]


class Broken(ValueError):
    """A file that cannot be read; the text says where and why."""


def collected(found: Iterable[tuple[str, str, str]]) -> list[Message]:
    """Return messages from (text, kind, place): one for each text, in order."""
    messages: dict[str, Message] = {}
    for text, kind, place in found:
        old = messages.get(text, Message(text, (), ()))
        kinds, places = dict.fromkeys((*old.kinds, kind)), dict.fromkeys((*old.places, place))
        messages[text] = Message(text, tuple(kinds), tuple(places))
    return list(messages.values())


def read(path: Path) -> polib.POFile:
    """Return a catalog; raises `Broken` with the file and the line of the first fault."""
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Broken(f"{path}:{line}: this is not UTF-8; save the file as UTF-8.") from None
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r"<<<<<<< |=======$|>>>>>>> ", line):
            raise Broken(f"{path}:{number}: a conflict of git is not resolved; keep one of the two versions.")
        if re.match(r'\s*(?:#~ ?)?(?:#?\| ?)?(?:msg|")', line) and not _LINE.match(line.strip()):
            raise Broken(f"{path}:{number}: a quotation mark is missing or not escaped: {line.strip()[:60]}")
    try:
        catalog = polib.pofile(text if text.strip() else "\n", wrapwidth=WIDTH, check_for_duplicates=False)
    except (OSError, ValueError, UnicodeError) as error:
        number = re.search(r"line (\d+)", str(error))
        raise Broken(f"{path}:{number[1] if number else 1}: this is no gettext file: {error}") from None
    seen: set[str] = set()
    for entry in catalog:
        if not entry.obsolete and entry.msgid in seen:
            raise Broken(f"{path}:{entry.linenum}: this message is there twice; delete one: {entry.msgid[:60]!r}")
        if not entry.obsolete:
            seen.add(entry.msgid)
    return catalog


def is_current(entry: polib.POEntry) -> bool:
    """Tell whether a translation may be shown."""
    return bool(entry.msgstr) and not entry.fuzzy and not entry.obsolete


def current(catalog: polib.POFile) -> dict[str, str]:
    """Return the translations that may be shown, by their English."""
    return {entry.msgid: entry.msgstr for entry in catalog if is_current(entry)}


def count(messages: list[Message], catalog: Iterable[polib.POEntry]) -> dict[str, int]:
    """Return how many words of English are translated, translated before a change, and not translated."""
    entries = {entry.msgid: entry for entry in catalog if not entry.obsolete and entry.msgstr}
    states = dict.fromkeys(STATES, 0)
    for message in messages:
        entry = entries.get(message.text)
        states["missing" if entry is None else "fuzzy" if entry.fuzzy else "current"] += len(message.text.split())
    return states


def shares(states: Mapping[str, int]) -> tuple[int, int]:
    """Return the percentages of current and fuzzy words, rounded down."""
    total = sum(states.values()) or 1
    return 100 * states["current"] // total, 100 * states["fuzzy"] // total


def merged(
    messages: list[Message], old: Iterable[polib.POEntry], memory: Mapping[str, str] = {}, same: Iterable[str] = ()
) -> list[polib.POEntry]:
    """Return the entries for today's messages, and, obsolete, the translations that no message wants.

    A text that another catalog has translated (`memory`) keeps that translation. A changed text gets the translation
    of the most similar text that is gone, fuzzy, unless it stands in one of the places `same`.
    """
    wanted, old = {message.text for message in messages}, [copy.copy(entry) for entry in old]
    alive = {entry.msgid: entry for entry in old if not entry.obsolete and (entry.msgstr or entry.msgid in wanted)}
    gone = {e.msgid: e for e in old if e.obsolete and e.msgstr and e.msgid not in alive}
    spare = {**gone, **{text: entry for text, entry in alive.items() if text not in wanted}}
    reverted = {e.previous_msgid: text for text, e in spare.items() if e.fuzzy and e.previous_msgid}
    known = {text: (alive | gone).get(text) for text in wanted if text in alive or text in gone}
    missing = [m.text for m in messages if not getattr(known.get(m.text), "msgstr", "")]
    for text in missing:
        if text in reverted and reverted[text] in spare:
            known[text] = _entry(spare.pop(reverted[text]), text, fuzzy=False)
        elif text in memory:
            known[text] = polib.POEntry(msgid=text, msgstr=memory[text])
    missing = [text for text in missing if not getattr(known.get(text), "msgstr", "")]
    for text in wanted:
        spare.pop(text, None)
    for before, text in _similar(spare, missing):
        known[text] = _entry(spare.pop(before), text, fuzzy=True)
    entries = []
    for message in messages:
        entry = known.get(message.text) or polib.POEntry(msgid=message.text)
        entry.obsolete = False
        entry.comment, entry.occurrences = ", ".join(message.kinds), [(place, "") for place in message.places]
        if entry.fuzzy and entry.previous_msgid and {*message.places} & {*same}:
            entry.flags, entry.previous_msgid = [flag for flag in entry.flags if flag != "fuzzy"], None
        entries.append(entry)
    for entry in spare.values():
        entry.obsolete, entry.comment, entry.occurrences = True, "", []
        entries.append(entry)
    return entries


def _entry(source: polib.POEntry, text: str, fuzzy: bool) -> polib.POEntry:
    flags = [flag for flag in source.flags if flag != "fuzzy"] + ["fuzzy"] * fuzzy
    # Changed twice before anybody looked: what the translation was made for is the first text.
    before = (source.previous_msgid if source.fuzzy and source.previous_msgid else source.msgid) if fuzzy else None
    return polib.POEntry(
        msgid=text, msgstr=source.msgstr, flags=flags, previous_msgid=before, tcomment=source.tcomment
    )


def _similar(before: Iterable[str], after: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of similar texts, the most similar first, each text in one pair at most."""
    words = {text: re.findall(r"\w+|[^\w\s]", text) for text in [*before, *after]}
    scores = []
    for new in after:
        matcher = difflib.SequenceMatcher(None, autojunk=False)
        matcher.set_seq2(words[new])
        for place, old in enumerate(before):
            matcher.set_seq1(words[old])
            if matcher.real_quick_ratio() >= SIMILAR and matcher.quick_ratio() >= SIMILAR:
                scores.append((-matcher.ratio(), place, old, new))
    pairs: dict[str, str] = {}
    for score, _, old, new in sorted(scores):
        if -score >= SIMILAR and old not in pairs and new not in pairs.values():
            pairs[old] = new
    return list(pairs.items())


def updated(old: polib.POFile, entries: list[polib.POEntry], language: str) -> str | None:
    """Return the text of a catalog with these entries, or None if the old one says the same."""
    if old.metadata and {*map(_meaning, old)} == {*map(_meaning, entries)}:
        return None
    new = polib.POFile(wrapwidth=WIDTH)
    new.header = old.header
    new.metadata = old.metadata or {
        "Project-Id-Version": "code-completion-course",
        "Last-Translator": "",
        "Language": language,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
    }
    new.extend(entries)
    return str(new)


def _meaning(entry: polib.POEntry) -> tuple:
    places = () if entry.obsolete else tuple(place for place, _ in entry.occurrences)
    comment = "" if entry.obsolete else " ".join(entry.comment.split())
    previous = entry.previous_msgid or ""
    return entry.msgid, entry.msgstr, entry.fuzzy, bool(entry.obsolete), previous, comment, places


def write(texts: Mapping[Path, str]) -> list[Path]:
    """Write files that differ from what is on the disk, each at once or not at all; return those."""
    changed = [path for path, text in texts.items() if not path.exists() or path.read_bytes() != text.encode()]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
                file.write(texts[path])
            os.chmod(name, 0o644)  # noqa: PTH101 - mkstemp gives 0o600
            os.replace(name, path)  # noqa: PTH105
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return changed
