"""Open a small data set by its location: a folder, a file, or a Hub id."""

from pathlib import Path

from datasets import DatasetDict, load_dataset, load_from_disk

_FILES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def open_location(location: str, instead: str) -> DatasetDict:
    """Return the splits of a data set: a folder or file that `load_dataset` reads, or a Hub id (`name:configuration`).

    A folder may also be one that `save_to_disk` wrote. Raises `ValueError` for what is here and cannot be read, and
    `ConnectionError` for a Hub id that cannot be opened; that names `instead`, data sets which need no network.
    """
    place = Path(location).expanduser()
    if place.exists():
        return _open_here(place)
    path, _, config = location.partition(":")
    folder = Path(path).expanduser()
    try:
        return load_dataset(str(folder) if folder.is_dir() else path, config or None)
    except (OSError, ConnectionError) as error:
        raise ConnectionError(
            f"{location} is no folder or file here, and the Hub does not open it ({type(error).__name__}). Check "
            f"spelling and network, or use {instead}, which need no network."
        ) from error


def _open_here(place: Path) -> DatasetDict:
    try:
        if (place / "dataset_dict.json").is_file():
            return load_from_disk(str(place))
        if (place / "state.json").is_file():
            return DatasetDict({"train": load_from_disk(str(place))})
        if place.is_dir():
            return load_dataset(str(place))
        kind = next((_FILES[ending] for ending in place.suffixes if ending in _FILES), "json")  # also .jsonl.gz
        return load_dataset(kind, data_files=str(place), **({"sep": "\t"} if ".tsv" in place.suffixes else {}))
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = str(error.__cause__ or error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{place} cannot be read as a data set ({reason}). It must hold files such as train.jsonl, train.csv or "
            "train.parquet, with the same columns in every row."
        ) from error
