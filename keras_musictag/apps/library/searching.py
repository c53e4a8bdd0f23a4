"""Search a table of tags with DuckDB, by conditions on tags and by similarity of embeddings.

DuckDB parses the condition into a syntax tree, in which names of tags are replaced by columns, and runs it. A tag that
stands alone, as in `not vocals`, means that its probability is at least 0.5.
"""

from __future__ import annotations

import dataclasses
import glob
import importlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MissingExtraError
from ...models.vocabulary import column_of, name_of
from ...utils.checks import check_count
from .library_rows import COLUMNS, LibraryError, spec_digest
from .query_embedding import Likeness

if TYPE_CHECKING:
    from ...tagging.base_tagger import BaseTagger
    from .query_embedding import AudioFiles

_MIN_PROB = 0.5  # of a tag that stands alone in a condition
_CONSTANTS = ("null", "true", "false")  # of SQL, unless a tag has that name
_NEW_COLUMNS = {"title": "''", "start_s": "CAST(NULL AS DOUBLE)"}  # columns that older tables lack -> their default
_TAGS_SHOWN = 5  # number of tags per file, if the condition names none


class SearchError(LibraryError):
    """A search cannot be run."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A file that a search found.

    Attributes:
        path: as in the table.
        duration_s: duration of the audio in seconds.
        tags: tag -> probability: the tags in the condition, or the five most probable.
        similarity: cosine similarity to the embedding of `like` and `unlike`, from -1 to 1; `None` without them.
        title, start_s: of a part of a file, as in `LibraryRow`.
    """

    path: str
    duration_s: float
    tags: dict[str, float]
    similarity: float | None = None
    title: str = ""
    start_s: float | None = None


def search(
    table: str | os.PathLike[str],
    where: str = "",
    *,
    like: AudioFiles | None = None,
    unlike: AudioFiles | None = None,
    tagger: BaseTagger | str | os.PathLike[str] | None = None,
    limit: int = 20,
) -> list[Found]:
    """Find files in a table that `tag_library` wrote.

    Args:
        table: `.parquet` file, or a folder with several.
        where: condition as in SQL, e.g. `"guitar>0.5 and not vocals"`. Names are tags, also with spaces (`female vocal
            > 0.3`), and the table's columns (`duration_s < 60`); a tag alone means a probability of at least 0.5. Tags
            that were not kept count as 0. By default, all files.
        like: one audio file or several; sort by similarity to them. The table must have embeddings.
        unlike: one audio file or several; the direction of their embeddings is subtracted.
        tagger: `Tagger` that made the embeddings, or an argument for `load`. By default, the model in the table.
        limit: maximum number of files.

    Returns:
        Files, the most similar first, otherwise in the order of the table.

    Raises:
        SearchError: the table does not exist, the condition is invalid, or the table has no embeddings of the model.
        UnknownTagError: the condition has a name that is neither a tag nor a column; the message suggests similar ones.
        AudioError: `like` or `unlike` cannot be used.
        MissingExtraError: DuckDB is not installed.
        ValueError: `limit` is not a positive integer.
    """
    check_count("limit", limit)
    try:
        duckdb: Any = importlib.import_module("duckdb")
    except ImportError as error:
        raise MissingExtraError("duckdb", "search", "Searching") from error
    with duckdb.connect() as connection:
        try:
            _open(connection, Path(table))
            query = _Condition(connection, where)
            similarity, values, order = "NULL", list[Any](), ""
            audio = Likeness(like, unlike)
            if audio:
                embedding, comparable = _embedding(connection, table, audio, tagger)
                # Arrays: the function for lists fails if a row of the table has no embedding.
                array = f"FLOAT[{len(embedding)}]"
                similarity = f"array_cosine_similarity(try_cast(embedding AS {array}), ?::{array})"
                values = [embedding]
                order = f"WHERE embedding IS NOT NULL AND {comparable} ORDER BY similarity DESC"
            rows = connection.execute(
                f"SELECT path, duration_s, tags, {similarity} AS similarity, title, start_s "
                f"FROM ({query.sql}) {order} LIMIT {limit}",
                values,
            ).fetchall()
        except duckdb.Error as error:
            reason = " ".join(str(error).split("\n\n")[0].split())  # without the generated query below
            raise SearchError(f"{os.fspath(table)!r} cannot be searched for {where!r}: {reason}") from error
    return [Found(path, seconds, query.shown(tags), *others) for path, seconds, tags, *others in rows]


def _open(connection: Any, table: Path) -> None:
    """Create the view `tagged` of the rows with tags."""
    if not table.exists():
        raise SearchError(f"{str(table)!r} does not exist. Write it with: keras-musictag library DIR --out {table}")
    if table.suffix != ".parquet" and not table.is_dir():
        raise SearchError(f"Only Parquet can be searched; got {str(table)!r}. Use library --out NAME.parquet.")
    pattern = glob.escape(str(table)) + ("/*.parquet" if table.is_dir() else "")
    files = pattern.replace("'", "''")
    connection.execute(f"CREATE VIEW library AS FROM read_parquet('{files}')")
    columns = {name for name, *_ in connection.execute("DESCRIBE library").fetchall()}
    if not columns.issuperset(set(COLUMNS) - set(_NEW_COLUMNS)):
        raise SearchError(f"{str(table)!r} was not written by tag_library: it has no column {_missing(columns)!r}.")
    added = "".join(f", {value} AS {name}" for name, value in _NEW_COLUMNS.items() if name not in columns)
    connection.execute(f"CREATE VIEW tagged AS SELECT *{added} FROM library WHERE error = ''")


def _missing(columns: set[str]) -> str:
    return next(name for name in COLUMNS if name not in columns and name not in _NEW_COLUMNS)


class _Condition:
    """Translate a condition on tags to a query on `tagged`.

    Attributes:
        sql: the query, with all columns of `tagged`.
    """

    def __init__(self, connection: Any, where: str) -> None:
        self._tags: list[str] = [
            tag
            for (tag,) in connection.execute("SELECT DISTINCT unnest(map_keys(tags)) FROM tagged ORDER BY 1").fetchall()
        ]
        self._used: list[str] = []  # tags in the condition; the columns of number 2 are `tag 2` and `has 2`
        self.sql = "FROM tagged"
        if not where.strip():
            return
        text = f"SELECT * FROM tagged WHERE (\n{self._quote_tags(where)}\n)"
        (tree,) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchone()
        parsed = json.loads(tree)
        if parsed["error"]:
            raise SearchError(f"{where!r} is no condition: {parsed['error_message']}. Try: guitar > 0.5 and not vocals")
        if [statement["node"]["type"] for statement in parsed["statements"]] != ["SELECT_NODE"]:
            raise SearchError(f"{where!r} is more than a condition. Try: guitar > 0.5 and not vocals")
        self._replace_tags(parsed["statements"][0]["node"]["where_clause"], boolean=True)
        (condition,) = connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(parsed)]).fetchone()
        columns = "".join(
            f', coalesce(map_extract(tags, {_literal(tag)})[1], 0) AS "tag {number}", "tag {number}" >= {_MIN_PROB} '
            f'AS "has {number}"'
            for number, tag in enumerate(self._used)
        )
        self.sql = f"WITH tagged AS (SELECT *{columns} FROM main.tagged) {condition}"

    def shown(self, tags: dict[str, float]) -> dict[str, float]:
        """Select the tags of a file that the condition names, or the most probable ones."""
        if self._used:
            return {tag: tags.get(tag, 0.0) for tag in self._used}
        return dict(itertools.islice(tags.items(), _TAGS_SHOWN))

    def _quote_tags(self, where: str) -> str:
        """Put tags that are not names in SQL (`female vocal`) into quotation marks."""
        to_quote = [tag for tag in self._tags if _needs_quotes(tag)]
        names = "|".join(re.escape(tag) for tag in sorted(to_quote, key=len, reverse=True))
        if not to_quote:
            return where
        pattern = rf"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?<!\w)({names})(?!\w)"""

        def quoted(found: re.Match[str]) -> str:
            text = found[0]
            if found[1]:
                is_null = text.lower() in _CONSTANTS and re.search(r"\bis(\s+not)?\s*$", where[: found.start()], re.I)
                return text if is_null else _literal(text, '"')
            # A tag that itself has quotation marks, and is not another tag in quotation marks.
            return _literal(text, '"') if text in to_quote and text[1:-1] not in self._tags else text

        return re.sub(pattern, quoted, where, flags=re.IGNORECASE)

    def _replace_tags(self, node: Any, boolean: bool) -> None:
        """Replace tags by columns in a part of the syntax tree.

        Args:
            node: part of the tree.
            boolean: whether a boolean is expected in its place.
        """
        if isinstance(node, list):
            for part in node:
                self._replace_tags(part, boolean)
        elif isinstance(node, dict) and node.get("class") == "COLUMN_REF":
            (*above, name) = node["column_names"]
            if not above and name not in COLUMNS:
                node["column_names"] = [f"{'has' if boolean else 'tag'} {self._tag_number(name)}"]
        elif isinstance(node, dict):
            boolean = node.get("type") in ("CONJUNCTION_AND", "CONJUNCTION_OR", "OPERATOR_NOT")
            for part in node.values():
                self._replace_tags(part, boolean)

    def _tag_number(self, name: str) -> int:
        """Return the number of a tag, ignoring case; number a new one."""
        known = {tag.casefold(): tag for tag in reversed(self._tags)}
        tag = name if name in self._tags else known.get(name.casefold()) or known.get(name_of(name).casefold(), name)
        column_of(tag, self._tags)
        if tag not in self._used:
            self._used.append(tag)
        return self._used.index(tag)


def _needs_quotes(tag: str) -> bool:
    """Return whether a tag is not a name in SQL. Numbers and bare signs keep their meaning in SQL."""
    return tag.lower() in _CONSTANTS or (
        re.fullmatch(r"[^\W\d]\w*", tag) is None and re.search(r"[^\W\d]", tag) is not None
    )


def _literal(text: str, mark: str = "'") -> str:
    return mark + text.replace(mark, 2 * mark) + mark


def _embedding(
    connection: Any,
    table: str | os.PathLike[str],
    audio: Likeness,
    tagger: BaseTagger | str | os.PathLike[str] | None,
) -> tuple[list[float], str]:
    """Return the embedding to compare with, and the condition for rows with comparable embeddings."""
    made = connection.execute(
        "SELECT DISTINCT model, weights_sha256, spec_digest FROM tagged WHERE embedding IS NOT NULL"
    ).fetchall()
    if not made:
        raise SearchError(
            f"{os.fspath(table)!r} has no embeddings to compare with. Tag it again with embeddings=True, update=True "
            "(--embeddings --update)."
        )
    models = " and ".join(sorted(model for model, *_ in made))
    if tagger is None:
        if len(made) > 1:
            raise SearchError(f"{os.fspath(table)!r} has embeddings of {models}. Choose one (tagger, --model).")
        tagger = models
    if isinstance(tagger, (str, os.PathLike)):
        from ...loading import load

        tagger = load(tagger)
    revision = tagger.weights_sha256, spec_digest(tagger.spec)
    if revision not in [tuple(others) for _, *others in made]:
        raise SearchError(
            f"The embeddings of {os.fspath(table)!r} were made by {models}, not by this {tagger.spec.name} "
            f"({tagger.weights_sha256[:12]}). Give the tagger that made them (tagger, --model)."
        )
    comparable = f"weights_sha256 = {_literal(revision[0])} AND spec_digest = {_literal(revision[1])}"
    return audio.embedding(tagger), comparable
