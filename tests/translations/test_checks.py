"""Every check finds its fault, and lets a good translation pass."""

import json

import polib
import pytest

from translations.checks import CHECKS, of_message

# check: English, a fault, a good variant, kind
MESSAGES = [
    ("code spans", "Call `fit` first.", "Llame a `ajustar` primero.", "Primero llame a `fit`.", "paragraph"),
    ("links", "See [here](https://x.org/a).", "Vea [aquí](https://x.org/b).", "[Aquí](https://x.org/a).", "paragraph"),
    ("images", "![A curve](x.png)", "[Una curva](x.png)", "![Una curva](x.png)", "paragraph"),
    ("images", "![A curve](x.png)", "![](x.png)", "![Una curva](x.png)", "paragraph"),
    ("maths", "The loss $-\\log p$ falls.", "La pérdida $\\log p$ baja.", "La pérdida $-\\log p$ baja.", "paragraph"),
    ("tags", "Press <kbd>Esc</kbd> now.", "Pulse <kbd>Esc ahora.", "Ahora pulse <kbd>Esc</kbd>.", "paragraph"),
    ("numbers", "It reads 1,024 tokens.", "Lee 1 042 tokens.", "Lee 1 024 tokens.", "paragraph"),
    ("numbers", "It takes 0.25 seconds.", "Tarda 25 segundos.", "Tarda 0,25 segundos.", "paragraph"),
    ("numbers", "It reads lines.", "Lee 3 líneas.", "Lee líneas.", "paragraph"),
    ("numbers", "Twelve minutes, 16 MB.", "12 minutos, 61 MB.", "12 minutos, 16 MB.", "paragraph"),
    ("numbers", "10.4 million parameters", "1140 万个参数", "1040 万个参数", "paragraph"),
    ("placeholders", "{n} of {all} rows", "{n} de {todas} filas", "de {all} filas, {n}", "sentence"),
    ("placeholders", "{share:.1%} of it", "{share} de ello", "de ello, {share:.1%}", "sentence"),
    ("placeholders", "{n} rows", "{n filas", "{n} filas", "sentence"),
    ("emphasis", "**Guess first.** How many?", "**先猜一猜。**有多少？", "**先猜一猜**。有多少？", "paragraph"),
    ("emphasis", "A **short** text.", "Un texto corto.", "Un texto **corto**.", "paragraph"),
    ("pipes", "left or right", "izquierda | derecha", r"izquierda \| derecha", "table cell"),
    ("lines", "One line.", "Una\nlínea.", "Una línea.", "paragraph"),
    ("lines", "One line.", "Una línea. ", "Una línea.", "paragraph"),
    ("blocks", "The first point", "# El primer punto", "El primer punto", "list item"),
    ("blocks", "In 3 steps", "3. pasos", "En 3 pasos", "list item"),
    ("marks", "A text", "Un\u202e texto", "Un texto", "paragraph"),
    ("questions", "How many tokens?", "Cuántos tokens.", "¿Cuántos tokens?", "paragraph"),
    ("questions", "So many tokens.", "多少个词元？", "这么多词元。", "paragraph"),
]


def faults(english, text, kind, comment=""):
    entry = polib.POEntry(msgid=english, msgstr=text, comment=kind, tcomment=comment)
    return list(of_message(entry, runtime=kind == "sentence"))


@pytest.mark.parametrize(("check", "english", "fault", "good", "kind"), MESSAGES)
def test_a_check_finds_its_fault_and_nothing_else(check, english, fault, good, kind):
    assert {found.partition(":")[0] for found in faults(english, fault, kind)} == {check}
    assert faults(english, good, kind) == []


def test_every_check_is_tried():
    assert {message[0] for message in MESSAGES} == CHECKS.keys()


def test_an_exception_needs_a_reason():
    message = ("It reads 1,024 tokens.", "Lee mil tokens.", "paragraph")
    assert faults(*message, "allow numbers: in words here") == []
    assert "says no reason" in faults(*message, "allow numbers:")[0]
    assert "no check 'nothing'" in faults(*message, "allow nothing: reason")[0]


def test_a_fault_is_named_with_file_and_line(translated, capsys):
    translated.set("You need [the data](01_data.ipynb).", "Vi bezonas ĝin.")
    assert translated("build") == 0
    assert translated("check") == 1
    assert "translations/eo/LC_MESSAGES/00_start.po:" in (found := capsys.readouterr().out)
    assert "links: '](01_data.ipynb)' is missing" in found


def notebook(course):
    return course.root / "translations/eo/notebooks/00_start.ipynb"


def edit(old, new):
    def change(course):
        path = notebook(course)
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


def file(name, text="x"):
    def change(course):
        path = course.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    return change


def hand_edited_message(course):
    path = course.path()
    path.write_text(path.read_text(encoding="utf-8").replace('msgid "Start here"', 'msgid "Begin here"'), "utf-8")


FILES = {
    "built file": (edit("Stárt héré", "Stárt nów"), "run build, and do not edit it"),
    "msgid": (hand_edited_message, "not in step with the English text; run sync"),
    "orphan catalog": (file("translations/eo/LC_MESSAGES/99_gone.po", 'msgid ""\nmsgstr ""\n'), "delete it"),
    "orphan notebook": (file("translations/eo/notebooks/99_gone.ipynb"), "delete it"),
    "orphan texts": (file("course_utils/locale/fr.json", "{}"), "belongs to no language"),
    "no language": (file("translations/jp/LC_MESSAGES/00_start.po", 'msgid ""\nmsgstr ""\n'), "Did you mean 'ja'"),
    "other name": (file("translations/zh-cn/LC_MESSAGES/00_start.po", 'msgid ""\nmsgstr ""\n'), "'zh_CN'"),
}


@pytest.mark.parametrize(("change", "words"), FILES.values(), ids=FILES)
def test_files_that_do_not_belong_are_found(translated, change, words, capsys):
    assert translated("check") == 0
    change(translated)
    assert translated("check") == 1
    assert words in capsys.readouterr().out


def test_what_poedit_leaves_beside_a_catalog_is_no_fault(translated):
    file("translations/eo/LC_MESSAGES/00_start.mo")(translated)
    assert translated("check") == 0


CODE = {
    "a value": ("n=3", "n=4", True),
    "a text": ("number of tokens", "number of words", True),
    "a magic": ("%pip install course", "%pip install other", True),
    "a comment": ("# thé fírst númbér", "# lá únua", False),
}


@pytest.mark.parametrize(("old", "new", "wrong"), CODE.values(), ids=CODE)
def test_code_that_differs_is_found(translated, old, new, wrong):
    from translations.checks import of_notebook

    edit(old, new)(translated)
    found = list(of_notebook(translated.root / "notebooks/00_start.ipynb", notebook(translated)))
    assert bool(found) == wrong


def test_cells_out_of_order_are_found(translated):
    from translations.checks import of_notebook

    path = notebook(translated)
    made = json.loads(path.read_text(encoding="utf-8"))
    made["cells"].reverse()
    path.write_text(json.dumps(made), encoding="utf-8")
    assert "in order" in next(iter(of_notebook(translated.root / "notebooks/00_start.ipynb", path)))


def test_other_blocks_than_the_english_are_found(translated, capsys):
    translated.set("See [the rules](../README.md).", "Vidu [ilin](../README.md).\n\n- kaj")
    translated("build")
    assert translated("check") == 1
    assert "in cell many it has other headings, lists or tables" in capsys.readouterr().out
