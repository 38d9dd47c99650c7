"""A folder of many predicted cases as one table: volumes, warnings and measures of quality, and what failed."""

from gliomask.cohort.rows import Row, columns_of, read_row
from gliomask.cohort.table import FAILED, PARQUET, VOLUMES, FolderTable, Written, read_failed

__all__ = ["FAILED", "PARQUET", "VOLUMES", "FolderTable", "Row", "Written", "columns_of", "read_failed", "read_row"]
