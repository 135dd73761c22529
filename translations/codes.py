"""Codes and names of languages."""

import difflib
from pathlib import Path

from babel import Locale, UnknownLocaleError, localedata
from babel.languages import get_official_languages


def folders(root: Path) -> list[str]:
    """Return the languages that have a folder with catalogs."""
    return sorted(path.parent.name for path in (root / "translations").glob("*/LC_MESSAGES"))


def checked_code(code: str) -> str:
    """Return a language's code as its folder is named; raise `ValueError` with the nearest one if there is none."""
    first, *rest = code.replace("-", "_").split("_")
    name = "_".join([first.lower(), *(part.title() if len(part) == 4 else part.upper() for part in rest)])
    try:
        Locale.parse(name)
    except (UnknownLocaleError, ValueError, TypeError):
        raise ValueError(f"there is no language {code!r}. Did you mean {_nearest(code)!r}?") from None
    return name


def _nearest(code: str) -> str:
    known = [name for name in localedata.locale_identifiers() if "_" not in name]
    english = {(Locale.parse(name).english_name or name).lower(): name for name in known}
    if near := difflib.get_close_matches(code.lower(), english, 1, 0.8):
        return english[near[0]]
    official = get_official_languages(code.upper())  # of a country
    return official[0] if official else difflib.get_close_matches(code.lower(), known, 1, 0)[0]


def autonym(code: str) -> str:
    """Return a language's name for itself."""
    locale = Locale.parse(code)
    name = locale.languages.get(f"{locale.language}_{locale.script}") or locale.languages[locale.language]
    return name[0].upper() + name[1:]


def is_right_to_left(code: str) -> bool:
    """Tell whether a language is written from right to left."""
    return Locale.parse(code).text_direction == "rtl"
