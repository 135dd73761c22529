"""Pin source distributions: look each name and version up on the index and write the manifest of the code corpus.

    python -m tools.pin_sources seaborn==0.13.2 …    pins these versions anew, keeps the other entries

A new project is added with `--split` and, for the small slice, `--tiny`. Where it declares no SPDX expression, its
licence is that of the older entry, or `--license`.
"""

import argparse
import email
import hashlib
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

from course_utils.data.sources import MANIFEST, TIMEOUT, Source, load_manifest, package_index


def pin(name: str, version: str, license_name: str | None, folder: Path, **fields) -> Source:
    """Return the pinned source of one release; the archive is downloaded to `folder` for its size and licence.

    Raises `ValueError` when the index has no source distribution of that version, or serves other bytes than it names.
    """
    with package_index() as index:
        packages = index.get_project_page(name, timeout=TIMEOUT).packages
        found = [p for p in packages if p.package_type == "sdist" and p.version == version and "sha256" in p.digests]
        if not found:
            raise ValueError(f"the index has no source distribution of {name} {version}; look the version up there")
        path = folder / found[0].filename
        if not path.is_file():
            response = index.s.get(found[0].url, timeout=TIMEOUT)
            response.raise_for_status()
            path.write_bytes(response.content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != found[0].digests["sha256"]:
        raise ValueError(f"{path.name} has SHA-256 {digest}, the index names {found[0].digests['sha256']}")
    license_name = email.message_from_bytes(read_metadata(path))["License-Expression"] or license_name
    if license_name is None:
        raise ValueError(f"{name} {version} declares no SPDX expression; read its licence, and name it with --license")
    return Source(name, version, path.name, digest, path.stat().st_size, license_name, **fields)


def read_metadata(archive: Path) -> bytes:
    """Return the PKG-INFO file in the top folder of a source distribution."""
    with tarfile.open(archive) as tar:
        return tar.extractfile(next(m for m in tar if m.name.count("/") == 1 and m.name.endswith("/PKG-INFO"))).read()


def write_manifest(sources: list[Source]) -> None:
    """Write the manifest, sorted by name and version."""
    entries = [asdict(source) for source in sorted(sources, key=lambda source: (source.name, source.version))]
    MANIFEST.write_text(json.dumps({"sources": entries}, indent=2) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Pin what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="+", metavar="NAME==VERSION")
    parser.add_argument("--split", choices=("train", "validation"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument(
        "--only-pages", action="store_true", help="read its documentation alone, beside another release"
    )
    parser.add_argument("--license", help="SPDX expression")
    parser.add_argument("--folder", type=Path, required=True, help="where archives are kept")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    pinned = {(source.name, source.only_pages): source for source in (load_manifest() if MANIFEST.exists() else ())}
    for release in options.releases:
        name, _, version = release.partition("==")
        old = pinned.get(key := (name, options.only_pages))
        split = options.split or (old.split if old else "train")
        tiny = options.tiny or bool(old and old.tiny)
        license_name = options.license or (old.license if old else None)
        fields = {"split": split, "tiny": tiny, "only_pages": options.only_pages}
        pinned[key] = pin(name, version, license_name, options.folder, **fields)
        print(name, version, pinned[key].license, f"{pinned[key].size / 1e6:.1f} MB")
    write_manifest(list(pinned.values()))


if __name__ == "__main__":
    main()
