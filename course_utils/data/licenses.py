"""Name a licence by its SPDX identifier, from what a project declares about itself.

It reads declarations (package metadata, the first words of a licence file); it does not compare whole licence texts.
"""

import re
from functools import cache

from license_expression import ExpressionError, Licensing, get_spdx_licensing

UNKNOWN = "unknown"

# First match wins, so the narrower pattern stands first. "BSD" alone is ambiguous; the classifier and the short word
# are used for the three-clause text almost without exception among scientific packages.
PHRASES = (
    (
        r"apache(?:[\s-]+software)?(?:[\s-]+licen[sc]e)?,?\s*(?:v(?:ersion)?\.?\s*)?2|apache software licen[sc]e",
        "Apache-2.0",
    ),
    (r"affero", "AGPL-3.0-or-later"),
    (r"lesser general public licen[sc]e|\blgpl", "LGPL-3.0-or-later"),
    (r"general public licen[sc]e.*version 2\b|\bgpl[\s-]?v?2", "GPL-2.0-or-later"),
    (r"general public licen[sc]e|\bgpl", "GPL-3.0-or-later"),
    (r"mozilla public|\bmpl[\s-]?2", "MPL-2.0"),
    (r"python software foundation|\bpsf\b|licen[sc]e agreement for matplotlib", "PSF-2.0"),
    (r"(?:2|two)[\s-]clause|simplified bsd", "BSD-2-Clause"),
    (r"\bbsd\b|redistribution and use in source and binary forms", "BSD-3-Clause"),
    (r"\bmit\b|permission is hereby granted, free of charge", "MIT"),
    (r"\bisc\b", "ISC"),
    (r"\bunlicense\b", "Unlicense"),
)


@cache
def _spdx() -> Licensing:
    return get_spdx_licensing()


def spdx_expression(text: str) -> str | None:
    """Return a valid SPDX expression in its usual spelling, or None for any other text."""
    try:
        parsed = _spdx().parse(text, validate=True)
    except ExpressionError:
        return None
    return str(parsed) if parsed is not None else None


def spdx_from_text(text: str) -> str:
    """Return the SPDX identifier that a declaration or the start of a licence file names, else "unknown"."""
    words = " ".join(text[:1500].split())
    found = spdx_expression(words) if len(words) < 200 else None
    return found or next((name for pattern, name in PHRASES if re.search(pattern, words, re.IGNORECASE)), UNKNOWN)


def spdx_from_metadata(metadata) -> str:
    """Return the SPDX expression of a distribution from its core metadata, else "unknown".

    `metadata` is an `email.message.Message` (what `importlib.metadata` and a PKG-INFO file give). The fields are asked
    from the most to the least exact: License-Expression, the licence classifiers, License.
    """
    classifiers = [value for value in metadata.get_all("Classifier") or [] if value.startswith("License ::")]
    declared = [metadata["License-Expression"], *classifiers, metadata["License"]]
    names = (spdx_from_text(text.rpartition("::")[2] if "::" in text else text) for text in declared if text)
    return next((name for name in names if name != UNKNOWN), UNKNOWN)
