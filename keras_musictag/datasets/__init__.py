"""Data sets. Every source is read into a `Manifest`, a table of audio files and their tags.

`Manifest.load` reads a CSV, TSV, JSONL or Parquet file or a folder per class; `magnatagatune`, `jamendo`, `gtzan` and
`emotify` read published data sets. `manifest.validate()` checks all rows and files before training.
"""

from .info import DatasetInfo
from .loaders.emotify import emotify
from .loaders.gtzan import gtzan
from .loaders.jamendo import jamendo
from .loaders.magnatagatune import download_magnatagatune, magnatagatune
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
    "emotify",
    "gtzan",
    "jamendo",
    "magnatagatune",
]
