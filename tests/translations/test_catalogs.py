"""The catalogs keep what translators wrote, show only what is current, and change only where the English did."""

import codecs
import os
import re

import pytest

LAST = "The model reads the text in 12 small pieces, one after the other."
SHORT = "The model reads the text in 12 tiny pieces, one after the other."


def test_a_second_sync_and_build_write_nothing(translated, capsys):
    before = translated.files()
    capsys.readouterr()
    assert [translated("sync"), translated("build")] == [0, 0]
    assert capsys.readouterr().out == ""
    assert translated.files() == before


def rewrapped(text):
    return re.sub(r'msgid "(The model reads) (.*)"', r'msgid ""\n"\1 "\n"\2"', text)


def sorted_by_text(text):
    header, *entries = text.strip().split("\n\n")
    return "\n\n".join([header, *sorted(entries, key=lambda entry: entry[entry.index("msgid") :])]) + "\n"


FOREIGN = {
    "rewrapped": lambda text: rewrapped(text).encode(),
    "sorted": lambda text: sorted_by_text(text).encode(),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
    "bom": lambda text: codecs.BOM_UTF8 + text.encode(),
    "headers": lambda text: text.replace('"Language:', '"X-Generator: Poedit 3.6\\n"\n"Language:').encode(),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_what_editors_change_is_no_change(translated, change):
    path = translated.path()
    original = path.read_bytes().decode()
    path.write_bytes(change(original))
    assert path.read_bytes() != original.encode()
    before = translated.files()
    assert [translated("sync"), translated("build"), translated("check")] == [0, 0, 0]
    assert translated.files() == before


def test_a_changed_paragraph_is_fuzzy_and_appears_in_english(translated):
    translated.change("00_start", "last", SHORT)
    assert [translated("sync"), translated("build")] == [0, 0]
    entry = translated.entry(SHORT)
    assert (entry.fuzzy, entry.previous_msgid) == (True, LAST)
    assert entry.msgstr.startswith("Thé módél")
    cells = translated.built()
    assert cells["last"] == SHORT
    assert re.search(r"> \d\d % óf thís téxt", cells["languages"])
    assert translated("check") == 0


def test_of_two_changes_the_first_text_stays_beside_the_translation(translated):
    for text in (SHORT, SHORT.replace("one", "each")):
        translated.change("00_start", "last", text)
        translated("sync")
    assert translated.entry(SHORT.replace("one", "each")).previous_msgid == LAST


def test_a_text_that_changes_or_goes_and_comes_back_needs_no_review(translated):
    before = translated.files()
    for text in (SHORT, None):
        translated.change("00_start", "last", text)
        translated("sync")
        gone = translated.entry(LAST)
        assert gone is None if text else gone.obsolete
        translated.change("00_start", "last", LAST)
        translated("sync")
        assert translated.files() == before


def test_a_typing_error_needs_no_review(translated):
    translated.change("00_start", "last", SHORT)
    assert translated("sync", "--same-meaning", "00#last") == 0
    entry = translated.entry(SHORT)
    assert (entry.fuzzy, entry.previous_msgid) == (False, None)
    assert entry.msgstr.startswith("Thé módél")
    translated.change("00_start", "last", LAST)
    translated("sync")
    assert translated.entry(LAST).fuzzy
    translated("sync", "--same-meaning", "00#last")  # it can be named later, too
    assert not translated.entry(LAST).fuzzy


def test_an_unknown_cell_is_refused(translated, capsys):
    assert translated("sync", "--same-meaning", "00#nothing") == 1
    assert "no cell '00#nothing'" in capsys.readouterr().err


def test_a_paragraph_that_moves_to_another_notebook_keeps_its_translation(translated):
    translated.change("00_start", "last", None)
    translated.change("01_data", "last", LAST)
    translated("sync")
    entry = translated.entry(LAST, "01_data")
    assert (entry.fuzzy, entry.msgstr[:9]) == (False, "Thé módél")


def test_another_text_gets_no_proposal(translated):
    translated.change("00_start", "last", "Nothing here is like what was there before, so it starts anew.")
    translated("sync")
    assert translated.entry("Nothing here is like what was there before, so it starts anew.").msgstr == ""


def test_comments_and_flags_of_translators_stay(translated):
    translated.set(LAST, "Nova.", tcomment="allow numbers: a reason", flags=["no-wrap"])
    translated.change("00_start", "last", SHORT)
    translated("sync")
    entry = translated.entry(SHORT)
    assert (entry.tcomment, entry.flags) == ("allow numbers: a reason", ["no-wrap", "fuzzy"])


def broken(old, new):
    return lambda data: data.replace(old, new, 1)


BROKEN = {
    "quote": (broken(b'msgid "Start here"', b'msgid "Start here'), "quotation mark"),
    "inner quote": (broken(b'msgid "Start here"', b'msgid "Start "here"'), "quotation mark"),
    "encoding": (broken("Stárt".encode(), "Stárt".encode("latin-1")), "not UTF-8"),
    "conflict": (broken(b'msgid "Start here"', b'<<<<<<< HEAD\nmsgid "Start here"'), "conflict"),
    "twice": (lambda data: data + b'\nmsgid "Start here"\nmsgstr "x"\n', "twice"),
    "no text": (broken(b'msgid "Start here"', b'maxid "Start here"'), "no gettext file"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_with_its_line_and_nothing_is_written(translated, change, words, capsys):
    assert translated("new", "fr") == 0
    path = translated.path()
    path.write_bytes(change(path.read_bytes()))
    translated.change("00_start", "last", SHORT)
    before = translated.files()
    capsys.readouterr()
    assert [translated("sync"), translated("build"), translated("status")] == [1, 1, 1]
    errors = capsys.readouterr().err
    assert re.search(rf"{re.escape(str(path))}:\d+: .*{words}", errors), errors
    assert translated.files() == before
    assert translated("check", "fr") == 1  # only because it is not in step
    assert "run sync" in (found := capsys.readouterr().out)
    assert str(path) not in found


def test_a_file_is_written_whole_or_not_at_all(translated, monkeypatch):
    translated.change("00_start", "last", SHORT)
    before = translated.files()

    def fail(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        translated("sync")
    assert translated.files() == before


@pytest.mark.parametrize(("code", "near"), [("jp", "ja"), ("Japanese", "ja"), ("Spanisch", "es"), ("xx_yy", "")])
def test_an_unknown_language_is_refused_and_the_nearest_named(course, code, near, capsys):
    assert course("new", code) == 1
    assert re.search(f"Did you mean '{near}", capsys.readouterr().err)
    assert not list((course.root / "translations").glob("*/"))


def test_codes_are_written_as_folders_are_named(course):
    assert course("new", "zh-cn") == 0
    assert course.path(code="zh_CN").exists()


def test_status_counts_fuzzy_as_not_translated(translated, capsys):
    (translated.root / "translations/released.txt").write_text("eo\n")
    assert translated("status", "--require", "100") == 0
    translated.change("00_start", "last", SHORT)
    translated("sync")
    capsys.readouterr()
    assert translated("status", "--json") == 0
    assert '"fuzzy": 13' in capsys.readouterr().out
    assert translated("status", "--require", "97") == 1
    assert "eo: " in capsys.readouterr().err


def test_only_released_languages_must_be_complete(course):
    assert course("new", "eo") == 0
    assert course("status", "--require", "97") == 0
