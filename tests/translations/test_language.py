"""What code shows is looked up in the learner's language, and stays English where it is not there."""

import io
import json

import matplotlib
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from course_utils import fonts, language, plots
from course_utils.exercises import check, reveal
from course_utils.profiles import get_profile
from course_utils.say import say

TEXTS = {
    "{share:.1%} of the tokens": "{share:.1%} der Token",
    "tokens": "Token",
    "documents": "Dokumente",
    "seed {n}": "Startwert {n}",
    "A row of {length} tokens, with {count} ends in it.": "{count} Enden in einer Zeile mit {length} Token.",
    "{id}: not tried yet": "{id}: noch nicht versucht",
    "{id}: not right yet. {message}": "{id}: noch nicht richtig. {message}",
    "Measured: {value}{unit}. You made no guess.": "Gemessen: {value}{unit}. Sie haben nicht geraten.",
    "The answer must be a function; this is {shown_answer}.": "Gesucht ist eine Funktion; dies ist {shown_answer}.",
    "with {braces": "mit {Klammern",
    "letters": "文字",
    "{name}: it was refused. {why}": "{name}: abgelehnt. {why}",
    "all tokens": "alle <Token>",
    "tokens left: {left} · entropy: {entropy} bits": "noch {left} Token · Entropie: {entropy} Bit",
}


@pytest.fixture(autouse=True)
def german(tmp_path, monkeypatch):
    (tmp_path / "de.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    monkeypatch.setattr(language, "_FOLDER", tmp_path)
    monkeypatch.setenv("COURSE_LANGUAGE", "de")
    language._texts.cache_clear()
    language._told.clear()
    yield
    language._texts.cache_clear()
    fonts.families.cache_clear()
    fonts._fonts.cache_clear()


def words(figure):
    figure.savefig(io.BytesIO())
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_a_sentence_is_translated_before_its_values_are_filled_in(capsys):
    say("{share:.1%} of the tokens", share=0.25)
    assert capsys.readouterr().out == "25.0% der Token\n"


def test_a_text_with_values_is_found_by_its_template():
    assert language.text("A row of 128 tokens, with 3 ends in it.") == "3 Enden in einer Zeile mit 128 Token."


def test_values_that_are_texts_are_translated_too(capsys):
    say("{id}: not right yet. {message}", id="x", message="tokens")
    assert capsys.readouterr().out == "x: noch nicht richtig. Token\n"
    assert language.text("tokens: it was refused. documents") == "Token: abgelehnt. Dokumente"


def test_a_value_that_only_looks_like_a_template_stays_as_it_is(capsys):
    say("{id}: not right yet. {message}", id="x", message="seed 3")
    assert capsys.readouterr().out == "x: noch nicht richtig. seed 3\n"


def test_the_texts_of_a_widget_are_translated():
    page = plots.widget("decoding", {}, still=plots.Picture("", ""), alt="tokens").html
    assert 'noch <b data-part="left"></b> Token · Entropie: <b data-part="entropy"></b> Bit' in page
    assert 'data-others="all others" data-all="alle &lt;Token&gt;"' in page
    assert "[[" not in page


def test_a_text_that_is_not_there_stays_english():
    for english in ("another text", "", "  ", "with {braces and more", "{share:.1%} of the"):
        assert language.text(english) == english
    assert language.text("with {braces") == "mit {Klammern"


def test_labels_ticks_and_legends_of_a_figure_are_translated():
    figure = Figure()
    axes = figure.subplots()
    axes.set(xlabel="tokens", ylabel="bits")
    axes.bar([0], [1], label="seed 3")
    axes.set_xticks([0], ["documents"])
    axes.legend()
    language.translate(figure)
    found = words(figure)
    assert {"Token", "bits", "Startwert 3", "Dokumente"} <= {*found}
    assert not {"tokens", "seed 3", "documents"} & {*found}


def test_a_figure_stays_english_as_a_whole_where_no_font_has_the_letters(monkeypatch, capsys):
    usual = [font for font in font_manager.fontManager.ttflist if font.name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", usual)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    figure = Figure()
    axes = figure.subplots()
    axes.set(xlabel="tokens", ylabel="letters")
    for _ in range(2):
        language.translate(figure)
    assert {"tokens", "letters"} <= {*words(figure)}
    assert capsys.readouterr().out.count("no font") == 1


def test_right_to_left_labels_need_a_matplotlib_that_can_draw_them(monkeypatch):
    letters = frozenset("الرموز")
    monkeypatch.setattr(matplotlib, "__version__", "3.10.8")
    assert fonts.families(letters, "ar") == []
    fonts.families.cache_clear()
    monkeypatch.setattr(matplotlib, "__version__", "3.11.2")
    assert fonts.families(letters, "ar")


def test_a_font_that_was_installed_later_is_found(monkeypatch):
    file = font_manager.findfont("DejaVu Sans")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [file, "gone.ttf"])
    monkeypatch.setattr(matplotlib, "__version__", "3.11.2")
    assert fonts.families(frozenset("الرموز"), "ar") == ["DejaVu Sans"]


def test_pictures_have_translated_alternative_text():
    picture = plots.strips({"documents": [(3, 1)]}, x="tokens", alt="A row of 8 tokens, with 2 ends in it.")
    assert 'alt="2 Enden in einer Zeile mit 8 Token."' in picture.html
    assert picture.text == "[figure: 2 Enden in einer Zeile mit 8 Token.]"
    pages = {"seed 1": plots.spans(["tokens"], alt="documents")}
    slider = plots.frames(pages, label="tokens", alt="x")
    assert "Token: <input" in slider.html
    assert 'data-name="Startwert 1"' in slider.html
    assert ">tokens</span>" in slider.html  # a piece of text is data


def test_exercises_answer_in_the_language(capsys):
    check("00.complete", None)
    check("00.complete", 3)
    reveal(None, 5, "tokens")
    assert capsys.readouterr().out.splitlines() == [
        "00.complete: noch nicht versucht",
        "00.complete: noch nicht richtig. Gesucht ist eine Funktion; dies ist 3.",
        "Gemessen: 5 Token. Sie haben nicht geraten.",
    ]


def test_an_unknown_language_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setenv("COURSE_LANGUAGE", "fr")
    with pytest.raises(ValueError, match="unknown language 'fr'; set COURSE_LANGUAGE to one of en, de"):
        get_profile("tiny")
    assert language.text("tokens") == "tokens"
