"""Translated notebooks: the English cells, a switcher, links that stay within the language, right to left."""

import re
from pathlib import Path

import polib
from small_course import CELLS, COLAB

from translations import building
from translations.segments import FORMULA


def test_a_notebook_has_the_english_cells_and_two_more(translated):
    built = translated.built()
    assert list(built) == ["title", "languages", "colab", "language", "first", "many", "table", "last"]
    assert built["title"].startswith("# Stárt héré\n\nYóú nééd [thé dátá](01_data.ipynb).")
    assert built["colab"] == "# Ínstálls thé cóúrsé.\n%pip install course"
    assert built["language"].endswith('import os\n\nos.environ["COURSE_LANGUAGE"] = "eo"')
    assert built["first"] == CELLS["00_start"]["first"].replace("the first number", "thé fírst númbér")


def test_the_switcher_names_languages_and_translators(translated):
    (translated.root / "translations/released.txt").write_text("eo\nzh_CN\n")
    catalog = translated.po()
    catalog.metadata["Last-Translator"] = "Ana Pérez <ana@x.org>"
    catalog.save()
    translated("build")
    text = translated.built()["languages"]
    assert "[English](../../../notebooks/00_start.ipynb) · [简体中文](../../zh_CN/notebooks/00_start.ipynb)" in text
    assert f"[English]({COLAB}/00_start.ipynb)" in text
    assert f"({COLAB.replace('notebooks', 'translations/zh_CN/notebooks')}/00_start.ipynb)" in text
    assert "Tránslátéd by Ana Pérez." in text
    assert ">" not in text  # no banner: everything is translated


def test_links_stay_within_the_language_or_lead_to_the_english_file(translated):
    assert "(../README.md)" in translated.built()["many"]
    assert f"({COLAB.replace('notebooks', 'translations/eo/notebooks')}/00_start.ipynb)" in translated.built()["title"]
    readme = (translated.root / "translations/eo/README.md").read_text(encoding="utf-8")
    assert "[thé lícénsé](../../LICENSE)" in readme
    assert "[thé rúlés](#thé-rúlés)" in readme
    assert "[English](../../README.md)" in readme
    assert "Téxt fór áll." in readme
    assert "Nót thís" not in readme


def arabic():
    catalog = polib.pofile(str(Path(__file__).parent / "arabic.po"))
    return {entry.msgid: entry.msgstr for entry in catalog}


def test_thirty_arabic_messages_pass_the_checks():
    from translations.checks import of_message

    catalog = polib.pofile(str(Path(__file__).parent / "arabic.po"))
    assert len(catalog) >= 30
    for entry in catalog:
        entry.comment = "paragraph"
        assert list(of_message(entry, runtime=False)) == []


def test_arabic_is_marked_as_right_to_left_outside_code_and_formulas():
    language = building.Language("ar", {}, [])
    source = (
        "# Start here\n\nThe tokenizer has a vocabulary of 16 702 061 pieces.\n\nNot translated.\n\n"
        "```python\nx = 1\n```\n\n$$\nx = 1\n$$\n\n"
        "| profile | time |\n| --- | --- |\n| `tiny` | half a minute |\n\n"
        "<details>\n<summary>If you know the HF course</summary>\n\n"
        "- In version 5 of `transformers` the list is empty.\n\n</details>"
    )
    text = building.markdown(language, arabic(), source, "../../../notebooks/")
    runs = re.findall(r'(?s)<div dir="rtl">\n\n(.*?)\n\n</div>', text)
    assert len(runs) == 3
    assert runs[0].startswith("# ابدأ من هنا\n\n")
    assert "16\u00a0702\u00a0061" in runs[0]
    assert runs[1].startswith("| الإعداد | الوقت |\n| --- | --- |\n| `tiny` |")
    assert "\u200e`transformers`\u200e" in runs[2]
    outside = re.sub(r'(?s)<div dir="rtl">.*?</div>', "", text)
    for part in ("Not translated.", "```python\nx = 1\n```", "$$\nx = 1\n$$", "<details>", "</details>"):
        assert part in outside
    assert not any(FORMULA.search(run) for run in runs)
