"""Which clean documents to train on: all user-style code, and a share of the library code."""

import hashlib

from datasets import Dataset

from course_utils.data.cleaning import RULES
from course_utils.data.documents import is_user_style

# The rule on structure is left out: it drops every short plotting script, and those are what a learner writes.
TRAINING_RULES = tuple(rule for rule in RULES if rule.name != "no structure")


def sample_library(dataset: Dataset, share: float) -> Dataset:
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
