"""Which part of your own text is held out for validation: whole projects, or, in a single one, whole files."""

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from course_utils.data.cleaning import can_be_held_out
from course_utils.data.deduplication import duplicate_clusters, exact_duplicates, near_duplicates
from course_utils.data.documents import stable_order
from course_utils.data.filtering import KEYWORDS, any_keyword_in_string


def hold_out(frame: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return which documents to hold out, about a tenth of the text that can train a model, and a note on them."""
    documents = _documents(frame)
    left = documents[documents["left"]].drop_duplicates("group")
    size_of = left.set_index("group")["size"]
    parts = documents.drop_duplicates(["project", "group"])
    # A project counts with the copies of its files in others: they leave the training with it.
    share = parts["group"].map(size_of).groupby(parts["project"]).sum() / size_of.sum()
    share = share[share.index.isin(documents["project"][documents["left"]]) & (share <= 0.5)]
    if len(share):
        first = np.log(share / 0.1).abs().idxmin()  # the nearest to a tenth; then more, up to a tenth
        more = share.drop(first).sort_index(key=lambda names: [stable_order(name, "") for name in names]).cumsum()
        names = [first, *more.index[more + share[first] <= 0.1]]
        return documents["project"].isin(names), f"Held out for validation: {len(names)} projects, such as {first}."
    files = sorted(set(left["file"]), key=lambda name: stable_order("", name))
    note = "Both splits hold parts of a single project, or of copies of it: the validation loss is too good."
    return documents["file"].isin(files[: max(1, len(files) // 10)]), note


def _documents(frame: pd.DataFrame) -> pd.DataFrame:
    """Return project, file, size and group of copies of each document, and whether filter and rules leave it."""
    texts, paths = frame["content"], frame["path"]
    copies = [*enumerate(exact_duplicates(texts)), *near_duplicates(tqdm(texts, "Comparing", unit=" documents"))]
    modules = paths.str.replace(".doctest.py", ".py", regex=False)  # a module and its examples stay together
    found = pd.DataFrame({"project": frame["repo_name"], "size": frame["size"]})
    unnamed = frame.duplicated(["repo_name", "path"], keep=False)  # rows of a table may have any path, or none
    found["file"] = found["project"] + "/" + modules.where(~unnamed, texts)
    found["group"] = duplicate_clusters(copies, len(frame))
    cleaned = np.array([can_be_held_out(*pair) for pair in zip(texts, paths, strict=True)], dtype=bool)
    named = np.array([any_keyword_in_string(text, KEYWORDS) for text in texts], dtype=bool)
    # Where that is less than two files: whether the rules leave it, or whether it has text.
    for kept in (cleaned & named, cleaned, frame["size"] > 0):
        if found[kept].drop_duplicates("group")["file"].nunique() > 1:
            break
    return found.assign(left=kept)
