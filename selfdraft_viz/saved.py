"""Files that the package wrote, read again: whatever is wrong with one is said in words that name it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selfdraft_viz.errors import LoadError


@contextmanager
def reading(path: str | Path, what: str, writer: str) -> Iterator[None]:
    """Inside it a file is read and made into an object.

    Args:
        what: the file should hold, such as "trace". writer: of such files, such as "trace.save()".

    Raises:
        LoadError: the file is missing, or does not hold what it should.
    """
    if not Path(path).is_file():
        raise LoadError(f"there is no file {path}: give one that {writer} wrote")
    try:
        yield
    except LoadError:
        raise
    except (OSError, KeyError, IndexError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
        raise LoadError(f"{path} is a damaged {what}, or none: {type(error).__name__}: {error}") from error


def read_json(path: str | Path, what: str, form: str) -> dict[str, Any]:
    """The object in a JSON file whose "format" is `form`, without that; to be called inside `reading`.

    Raises:
        LoadError: it is of another form.
    """
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    if data.pop("format", None) != form:
        raise LoadError(f"{path} holds no {what} that this version of selfdraft_viz reads")
    return data


def read_table(path: str | Path, what: str, key: str, version: int) -> tuple[pa.Table, dict[str, Any]]:
    """A Parquet file's table, and the JSON object in its metadata under `key`; to be called inside `reading`.

    Raises:
        LoadError: it is no Parquet file, none of ours, or of another format version.
    """
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise LoadError(f"{path} is not a readable Parquet file: {error}") from error
    raw = (table.schema.metadata or {}).get(key.encode())
    if raw is None:
        raise LoadError(f"{path} is a Parquet file, but no {what} of selfdraft_viz")
    header = json.loads(raw)
    if header.pop("format_version") != version:
        raise LoadError(f"{path} is a {what} in another format version: update selfdraft_viz")
    return table, header
