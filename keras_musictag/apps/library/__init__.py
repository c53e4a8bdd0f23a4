"""Tag a whole music library: each file gets a row with its tags or with the error, also after crashes and restarts.

Stages: `listing` finds the files, and `segments` the tracks in them; `decoding` cuts a file into windows, in processes
that `pool` runs (`worker`); `batching` runs the network on windows of many files; `journal` stores the rows, and
`output` writes them as CSV or Parquet. `local_engine` joins all stages on one machine, and `ray_engine` on a cluster,
with `storage` for remote files and `parts` for rows in a folder; both use `work`, which joins decoding and tagging.

Tags in files: `write_back` writes tags into the files' metadata, `tag_plans` chooses the values and `tag_fields` the
fields; `undo` records the changes, and `restoring` undoes them. `searching` queries the table, and `playlists` writes
the files found.
"""

from .library_rows import LibraryError as LibraryError
from .library_rows import LibraryRow as LibraryRow
from .local_engine import tag_library as tag_library
from .playlist_writing import write_m3u as write_m3u
from .ray_engine import tag_on_ray as tag_on_ray
from .searching import Found as Found
from .searching import SearchError as SearchError
from .searching import search as search
from .summary import LibrarySummary as LibrarySummary
from .tag_plans import WriteOptions as WriteOptions
from .undo_library import undo_files as undo_files
from .undo_library import undo_library as undo_library

__all__ = [
    "Found",
    "LibraryError",
    "LibraryRow",
    "LibrarySummary",
    "SearchError",
    "WriteOptions",
    "search",
    "tag_library",
    "tag_on_ray",
    "undo_files",
    "undo_library",
    "write_m3u",
]
