"""The sentence before a code block, as a comment in plain text: what a learner would write above the code."""

import re
import textwrap

WIDTH = 88
SHORT = 40  # characters; "For example:" says nothing without the sentence before it
LONGEST = 300
LOOK_BACK = 2000  # a notebook's text may hold a picture as one line of a million characters

PARAGRAPH = re.compile(r"\n[ \t]*\n")
LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)]|#\.)[ \t]+", re.MULTILINE)
FIELD = re.compile(r"^[ \t]*(?::[\w -]+:(?!`).*|::|<!--.*-->)$", re.MULTILINE)  # options of a directive, HTML comments
HEADING = re.compile(r"(?m)^(?:[ \t]*#{1,6}[ \t]+(\S.*)|(.*\w.*)\n[ \t]*([^\w\s])\3{2,}[ \t]*)$")  # or underlined
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[\"'(]?[A-Z])")
WORD = re.compile(r"[^\W\d_]{2,}")
PLAIN_TEXT = [  # in this order: reStructuredText and Markdown, which quote code and link in similar ways
    (re.compile(r"!\[[^\]]*\]\([^)]*\)|\[#?[\w-]*\]_\b"), ""),  # images, footnotes
    (re.compile(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])"), r"\1"),  # [text](address)
    (re.compile(r"(?::[\w:.+-]+:|\{[\w:.+-]+\})?`([^`<>]*[^`<>\s])\s*<[^`>]*>`_{0,2}"), r"\1"),  # `text <address>`_
    (re.compile(r"(?::[\w:.+-]+:|\{[\w:.+-]+\})`(?:~(?:[^`.]*\.)*|!)?([^`]+)`"), r"\1"),  # :func:`~module.name`
    (re.compile(r"</?[A-Za-z][^>]*>"), ""),
    (re.compile(r"(?<![\w*`])(\*{1,3}|_)(?=\S)([^*_`]+)(?<=\S)\1(?![\w*])"), r"\2"),  # *emphasis*
    (re.compile(r"`+([^`]+)`+(?:_{1,2}\b)?"), r"\1"),
    (re.compile(r"\\([*_`|\\])|\\$", re.MULTILINE), r"\1"),
    (re.compile(r":{2,}[ \t]*$"), ":"),
]


def as_comment(text: str) -> str:
    """Return the last sentence or heading of a text with markup, as lines that begin with `# `; "" without one."""
    paragraph = PARAGRAPH.split(HEADING.sub(r"\n# \1\2\n\n", FIELD.sub("", text[-LOOK_BACK:])).rstrip())[-1].lstrip()
    heading = paragraph.startswith("# ")
    plain = LIST_ITEM.split(paragraph.removeprefix("# "))[-1]
    for pattern, replacement in PLAIN_TEXT:
        plain = pattern.sub(replacement, plain)
    sentences = SENTENCE_END.split(" ".join(plain.split()))
    sentence = " ".join(sentences[-2 if len(sentences[-1]) < SHORT else -1 :])
    words = len(WORD.findall(sentence))
    # Without a full stop it may be the rest of an output: "Name: price, dtype: float64".
    enough = 2 if heading else 3 if sentence.endswith((".", ":", "!", "?", ")")) else 6
    if words < enough or len(sentence) > LONGEST or not sentence[0].isalpha() or "dtype" in sentence:
        return ""
    return textwrap.fill(sentence, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False) + "\n"
