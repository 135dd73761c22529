"""How well a model predicts held-out code, token by token, as a table to group by project and by kind of token."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from pygments.lexers import PythonLexer
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from course_utils.evaluation.surprise import token_surprise

WHITE_SPACE = "white space"
_KINDS = {  # Operator.Word: and, or, not, in, is; Error: $, ?, typographic quotation marks
    Comment: "comment", Keyword: "keyword", Operator.Word: "keyword", Name: "name", Number: "number",
    String: "string", Operator: "operator", Punctuation: "operator", Error: "not Python",
}  # fmt: skip


def score_documents(
    model: PreTrainedModel, tokenizer: Any, documents: Iterable[Mapping[str, str]], max_characters: int
) -> pd.DataFrame:
    """Return one row per token of the documents (columns repo_name and content), each cut to `max_characters`.

    `document` is a document's number, `kind` that of the Python token, `confidence` the probability of the most likely
    token, `hit` whether that was right. Sums of bits over sums of bytes are bits per byte; means of bits are losses in
    bits per token.
    """
    rows = []
    for number, document in enumerate(tqdm(documents, unit=" documents")):
        text = document["content"][:max_characters]
        kinds = character_kinds(text)
        for token in token_surprise(model, tokenizer, text) if text else ():
            first = len(token.text) - len(token.text.lstrip())  # a leading space says nothing about the token's kind
            kind = WHITE_SPACE if first == len(token.text) else kinds[token.start + first]
            size, hit = len(token.text.encode()), token.text == token.expected
            rows.append((number, document["repo_name"], token.text, kind, token.bits, size, token.probability, hit))
    columns = ["document", "project", "text", "kind", "bits", "num_bytes", "confidence", "hit"]
    return pd.DataFrame(rows, columns=columns)


def character_kinds(source: str) -> list[str]:
    """Return the kind of Python token that each character of a source belongs to; works for code with errors, too."""
    kinds = [WHITE_SPACE] * len(source)
    for start, found, text in PythonLexer().get_tokens_unprocessed(source):
        kind = next((name for group, name in _KINDS.items() if found in group), WHITE_SPACE)
        kinds[start : start + len(text)] = [kind] * len(text)
    return kinds
