"""Which fonts of this machine have the letters of a language, for the words in figures."""

import contextlib
import functools
import unicodedata

import matplotlib
from matplotlib import font_manager

_HAN = {"ja": "JP", "ko": "KR", "zh_CN": "SC", "zh_TW": "TC"}  # fonts by the shapes of their Chinese characters


@functools.cache
def families(letters: frozenset[str], code: str) -> list[str]:
    """Return the usual font and, where it lacks letters, one that has the rest; [] if there is none."""
    usual = matplotlib.rcParams["font.sans-serif"][0]
    rest = letters - _letters(font_manager.findfont(usual))
    turned = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in letters)
    if turned and tuple(map(int, matplotlib.__version__.split(".")[:2])) < (3, 11):  # draws them from left to right
        return []
    found = usual if not rest else next((name for name, file in _fonts(code) if rest <= _letters(file)), "")
    return list(dict.fromkeys([usual, found])) if found else []


@functools.cache
def _fonts(code: str) -> list[tuple[str, str]]:
    """Return name and file of each font that draws letters, also of new ones, those for the language first."""
    manager = font_manager.fontManager
    for path in {*font_manager.findSystemFonts()} - {font.fname for font in manager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):
            manager.addfont(path)  # installed since Matplotlib made its list
    fonts = {(font.name, font.fname) for font in manager.ttflist if "Last Resort" not in font.name}  # it draws boxes
    return sorted(fonts, key=lambda font: (_HAN.get(code, "") not in font[0], font))


@functools.cache
def _letters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
