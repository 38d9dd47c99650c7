"""Tables as Parquet files, for programs such as DuckDB, polars, pandas and R; needs pyarrow (extra `cohort`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gliomask.errors import InputError
from gliomask.extras import missing_extra
from gliomask.files.whole import replacing

Value = str | int | float | None


def can_parquet() -> bool:
    """Return whether pyarrow is installed; it is not imported for that."""
    return find_spec("pyarrow") is not None


def require_parquet() -> None:
    """Refuse to go on where pyarrow is not installed.

    Raises:
        InputError: It is not; the message has the command that installs it.
    """
    if not can_parquet():
        raise missing_extra("Parquet files need pyarrow", "cohort")


def write_parquet(path: Path, columns: Mapping[str, type], rows: Sequence[Mapping[str, Value]], name: str) -> None:
    """Write rows as a Parquet file, whole or not at all.

    Args:
        path: The file.
        columns: The name and the type (`str`, `int` or `float`) of each column, in order.
        rows: The rows; a column that a row lacks, or that is None in it, is null.
        name: What the table is, kept in the file's metadata; see `parquet_name`.

    Raises:
        InputError: pyarrow is not installed, or the file cannot be written.
    """
    require_parquet()
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([pa.field(column, kinds[kind]) for column, kind in columns.items()], metadata={"gliomask": name})
    arrays = [
        pa.array([row.get(column) for row in rows], kinds[kind], from_pandas=False) for column, kind in columns.items()
    ]
    with replacing(path) as partial:
        parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), partial)


def read_parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and the rows of a Parquet file.

    Raises:
        InputError: pyarrow is not installed, or the file cannot be read.
    """
    require_parquet()
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).rstrip('.')}.") from error
    rows: list[dict[str, Any]] = table.to_pylist()
    return list(table.column_names), rows


def parquet_name(path: Path) -> str:
    """Return what `write_parquet` was told that a file is; empty where it wrote none, or the file cannot be read.

    Raises:
        InputError: pyarrow is not installed.
    """
    require_parquet()
    import pyarrow as pa
    from pyarrow import parquet

    try:
        metadata = parquet.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return ""
    return str(metadata.get(b"gliomask", b"").decode("utf-8", "replace"))
