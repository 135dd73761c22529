"""The command line: `python -m translations new | sync | build | check | status`."""

import argparse
import difflib
import sys
from pathlib import Path

import polib
from babel import Locale, UnknownLocaleError, localedata
from babel.languages import get_official_languages

from . import building, catalogs, sources

HERE = Path(__file__).parent


def languages() -> list[str]:
    """Return the languages that have a folder with catalogs."""
    return sorted(path.parent.name for path in HERE.glob("*/LC_MESSAGES"))


def checked_code(code: str) -> str:
    """Return a language's code as folders are named; raises `ValueError` with the nearest code if there is none."""
    parts = code.replace("-", "_").split("_")
    name = "_".join([parts[0].lower(), *(p.title() if len(p) == 4 else p.upper() for p in parts[1:])])
    try:
        Locale.parse(name)
    except (UnknownLocaleError, ValueError):
        english = {Locale.parse(c).english_name.lower(): c for c in localedata.locale_identifiers() if len(c) < 4}
        near = [english[code.lower()]] if code.lower() in english else [*get_official_languages(code.upper())]
        near = near or difflib.get_close_matches(name, localedata.locale_identifiers(), 1, 0) or ["es"]
        raise ValueError(f"there is no language {code!r}. Did you mean {near[0]!r}?") from None
    return name


def sync(chosen: list[str], same: list[str]) -> dict[Path, str]:
    """Return the catalogs that must change; reads all before anything is written."""
    wanted = sources.catalogs()
    places = {f"{name}#{cell}" for name in wanted for word in same for n, cell in [word.split("#")] if name[:2] == n}
    texts: dict[Path, str] = {}
    for language in chosen:
        folder = HERE / language / "LC_MESSAGES"
        paths = {name: folder / f"{name}.po" for name in wanted}
        old = {name: catalogs.read(path) if path.exists() else polib.POFile() for name, path in paths.items()}
        gone = [catalogs.read(path) for path in folder.glob("*.po") if path.stem not in wanted]
        memory: dict[str, str] = {}
        for catalog in [*gone, *old.values()]:
            memory |= catalogs.current(catalog)
        for name, messages in wanted.items():
            entries = catalogs.merged(messages, old[name], memory, places)
            if (text := catalogs.updated(old[name], entries, language)) is not None:
                texts[paths[name]] = text
    return texts


def build(chosen: list[str]) -> dict[Path, str]:
    """Return every built file with its text; reads all catalogs before anything is written."""
    texts: dict[Path, str] = {}
    for code in chosen:
        folder = HERE / code
        files = {path.stem: catalogs.read(path) for path in sorted((folder / "LC_MESSAGES").glob("*.po"))}
        language = building.Language(code, files, released())
        for name, path in sources.notebooks().items():
            texts[folder / "notebooks" / path.name] = building.notebook(language, name, path)
        texts[folder / "README.md"] = building.readme(language)
        texts[sources.ROOT / "course_utils" / "locale" / f"{code}.json"] = building.package_texts(language)
    return texts


def released() -> list[str]:
    """Return the languages that every reader is pointed to, and that must stay complete."""
    return (HERE / "released.txt").read_text(encoding="utf-8").split()


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m translations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("new", help="make the files of a language").add_argument("language")
    syncing = commands.add_parser("sync", help="bring the .po files up to date with the English text")
    syncing.add_argument("--same-meaning", action="append", default=[], metavar="NN#CELL")
    commands.add_parser("build", help="write translated notebooks, pages and the texts of the package")
    options = parser.parse_args(arguments)
    try:
        chosen, same = languages(), getattr(options, "same_meaning", [])
        if options.command == "new":
            chosen = [checked_code(options.language)]
        texts = build(chosen) if options.command == "build" else sync(chosen, same)
        changed = catalogs.write(texts)
        print(*(path.relative_to(HERE.parent) for path in changed), sep="\n", end="\n" if changed else "")
    except ValueError as error:
        print(f"translations: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
