"""Data: every source becomes a `Manifest`, one table of sounds with their tags.

`Manifest.load` reads a CSV, TSV, JSONL or Parquet file or a folder per class; `magnatagatune` reads that data set.
`manifest.validate()` looks at everything before any training does.
"""

from .info import DatasetInfo
from .magnatagatune import download_magnatagatune, magnatagatune
from .manifest import DataError, Manifest
from .report import Problem, Report
from .rows import SPLITS, Row

__all__ = [
    "SPLITS",
    "DataError",
    "DatasetInfo",
    "Manifest",
    "Problem",
    "Report",
    "Row",
    "download_magnatagatune",
    "magnatagatune",
]
