"""A whole library of music: every file tagged, or a row that says why not, whatever happens on the way.

One module per stage: `listing` finds the files and `segments` their tracks, `decoding` makes windows of one, `batching`
puts windows of many through the network, `journal` keeps the rows, `output` writes them as CSV or Parquet, `write_back`
puts tags into the files: `tag_plans` says which, `tag_fields` where, and `undo` keeps what was there before, for
`restoring`. `worker` and `pool` decode in processes of their own; `work` joins decoding and tagging, and `local_engine`
all stages on one machine. `ray_engine` does so on a cluster, with `storage` for files elsewhere and `parts` for rows in
a folder. `searching` reads the table again, and `playlists` writes what it finds.
"""

from .library_rows import LibraryError as LibraryError
from .library_rows import LibraryRow as LibraryRow
from .local_engine import tag_library as tag_library
from .playlists import write_m3u as write_m3u
from .ray_engine import tag_on_ray as tag_on_ray
from .restoring import undo_files as undo_files
from .restoring import undo_library as undo_library
from .searching import Found as Found
from .searching import SearchError as SearchError
from .searching import search as search
from .summary import LibrarySummary as LibrarySummary
from .tag_plans import WriteOptions as WriteOptions

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
