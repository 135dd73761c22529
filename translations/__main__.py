"""The translations of the course: `python -m translations new | sync | build | check | status`."""

import argparse
import json
import sys
from pathlib import Path

from . import building, catalogs, checks, sources
from .catalogs import Broken
from .codes import checked_code, folders

Files = dict[str, catalogs.polib.POFile]


def opened(root: Path, code: str) -> tuple[Files, list[str]]:
    """Return the catalogs of a language by name, and what is wrong with those that cannot be read."""
    files, faults = {}, []
    for path in sorted((root / "translations" / code / "LC_MESSAGES").glob("*.po")):
        try:
            files[path.stem] = catalogs.read(path)
        except Broken as error:
            faults.append(str(error))
    return files, faults


def synced(root: Path, code: str, files: Files, same: list[str] = []) -> dict[Path, str]:
    """Return the catalogs of a language that must change, with their new texts."""
    wanted, folder = sources.catalogs(root), root / "translations" / code / "LC_MESSAGES"
    memory = {text: t for file in files.values() for text, t in catalogs.current(file).items()}
    texts: dict[Path, str] = {}
    for name, messages in wanted.items():
        old = files.get(name) or catalogs.polib.POFile()
        entries = catalogs.merged(messages, old, memory, same)
        if (text := catalogs.updated(old, entries, code)) is not None:
            texts[folder / f"{name}.po"] = text
    return texts


def built(root: Path, code: str, files: Files) -> dict[Path, str]:
    """Return everything that is built from the catalogs of a language, with its text."""
    folder = root / "translations" / code
    language = building.Language(code, files, sources.released(root))
    texts = {
        folder / "notebooks" / path.name: building.notebook(language, name, path)
        for name, path in sources.notebooks(root).items()
    }
    texts[folder / "README.md"] = building.readme(language, sources.readme(root))
    return texts | {root / "course_utils" / "locale" / f"{code}.json": building.package_texts(language)}


def check(root: Path, codes: list[str]) -> list[str]:
    """Return everything that is wrong, as lines with file, line and remedy."""
    found = checks.of_folders(root, codes)
    for code in codes:
        files, faults = opened(root, code)
        found += faults
        if faults or checks.wrong_name(code):
            continue
        folder = root / "translations" / code / "LC_MESSAGES"
        found += [fault for name, file in files.items() for fault in checks.of_catalog(folder / f"{name}.po", file)]
        for name, path in sources.notebooks(root).items():
            found += checks.of_blocks(folder / f"{name}.po", path, catalogs.current(files.get(name, [])))
        stale = synced(root, code, files)
        found += [f"{path}: is not in step with the English text; run sync." for path in stale]
        for path, text in ({} if stale else built(root, code, files)).items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                found.append(f"{path}: is not what build makes of the .po files; run build, and do not edit it.")
            elif path.suffix == ".ipynb":
                found += checks.of_notebook(root / "notebooks" / path.name, path)
    return [fault.replace(f"{root}/", "") for fault in found]


def counted(root: Path, codes: list[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Return, for each language and catalog, how many words of English are current, fuzzy and missing."""
    wanted = sources.catalogs(root)
    table: dict[str, dict[str, dict[str, int]]] = {}
    for code in codes:
        files, faults = opened(root, code)
        if faults:
            raise Broken("\n".join(faults))
        table[code] = {name: catalogs.count(messages, files.get(name, [])) for name, messages in wanted.items()}
        total = {state: sum(row[state] for row in table[code].values()) for state in catalogs.STATES}
        table[code]["total"] = total
    return table


def status(root: Path, codes: list[str], as_json: bool, required: int) -> int:
    """Print how much is translated; return 1 if a released language has less than is required."""
    table = counted(root, codes)
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        print(f"{'words, in percent: current + fuzzy':<36}", *(f"{code:>12}" for code in codes))
        for name in next(iter(table.values()), {}):
            shares = (catalogs.shares(table[code][name]) for code in codes)
            print(f"{name:<36}", *(f"{current:>6} + {fuzzy:<3}" for current, fuzzy in shares))
    short = [c for c in sources.released(root) if c in table and catalogs.shares(table[c]["total"])[0] < required]
    for code in short:
        print(f"{code}: {catalogs.shares(table[code]['total'])[0]} % is translated, {required} % is required.", file=sys.stderr)
    return int(bool(short))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m translations", description="The translations of the course.")
    parser.add_argument("--root", type=Path, default=sources.ROOT, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("new", help="make the .po files of a language").add_argument("language")
    syncing = commands.add_parser("sync", help="bring the .po files in step with the English text")
    same = "the English of this cell changed, its meaning did not (a typing error): keep its translations"
    syncing.add_argument("--same-meaning", action="append", default=[], metavar="NN#CELL", help=same)
    commands.add_parser("build", help="write the translated notebooks, pages and texts of the package")
    for name, text in {"check": "say what is wrong", "status": "say how much is translated"}.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("languages", nargs="*", metavar="LANGUAGE", help="default: all")
    command.add_argument("--json", action="store_true", help="numbers of words, for programs")
    command.add_argument("--require", type=int, default=0, metavar="PERCENT", help="fail if a released language has less")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return 0, or 1 if something is wrong."""
    options = _parser().parse_args(arguments)
    root = options.root
    sources.read_notebook.cache_clear()
    sources.catalogs.cache_clear()
    try:
        given = [options.language] if options.command == "new" else getattr(options, "languages", [])
        codes = [checked_code(code) for code in given] or folders(root)
        if options.command != "check" and (wrong := next(filter(None, map(checks.wrong_name, codes)), "")):
            raise ValueError(wrong)
        if options.command == "status":
            return status(root, codes, options.json, options.require)
        if options.command == "check":
            print(*(faults := check(root, codes)), sep="\n", end="\n" if faults else "")
            print(f"{len(faults)} faults in {len(codes)} languages.")
            return int(bool(faults))
        same = sources.places(root, getattr(options, "same_meaning", []))
        read = {code: opened(root, code) for code in codes}
        if faults := [fault for _, found in read.values() for fault in found]:
            raise Broken("\n".join([*faults, "Nothing was written."]))
        texts: dict[Path, str] = {}
        for code, (files, _) in read.items():
            texts |= built(root, code, files) if options.command == "build" else synced(root, code, files, same)
        for path in catalogs.write(texts):
            print(f"written: {path.relative_to(root)}")
    except ValueError as error:
        print(f"translations: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
