"""What the course asks its models, read from prompts.json (a prompt is a list of lines there)."""

import json
from pathlib import Path

_DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
# Of the tutorial (SYSTEMS A11: a comment says what the code should do), the book (C11) and the blog (E9).
TUTORIAL_PROMPTS, BOOK_PROMPTS, BLOG_PROMPTS = (
    {name: "\n".join(lines) for name, lines in _DATA[source].items()} for source in ("tutorial", "book", "blog")
)
# (kind, prompt, continuation): what every data-science script shares, and what can only be copied from the prompt.
IDIOMS, UNSEEN_IDIOMS = (tuple(map(tuple, _DATA[name])) for name in ("idioms", "unseen_idioms"))
