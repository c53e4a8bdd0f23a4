"""Searching what was tagged: conditions on tags, and likeness of embeddings, both computed by DuckDB.

DuckDB parses the condition and gives its syntax tree. In it, names of tags become columns; then DuckDB runs it. A tag
that stands for itself, as in `not vocals`, means that its probability is at least 0.5.
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
from .likeness import Likeness

if TYPE_CHECKING:
    from ...tagging.base import BaseTagger
    from .likeness import Sounds

_MEANT = 0.5  # probability from which on a tag counts as being there
_CONSTANTS = ("null", "true", "false")  # of SQL, where no tag has that name
_ADDED = {"title": "''", "start_s": "CAST(NULL AS DOUBLE)"}  # columns that older tables lack, and their values there
_SHOWN = 5  # tags of a file, if the condition names none


class SearchError(LibraryError):
    """A search that cannot be run."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A file that a search found.

    Attributes:
        path: as in the table.
        duration_s: seconds of sound.
        tags: tag -> probability: those that the condition names, or the five most probable.
        similarity: cosine of its embedding and that of the sound it is to be like, from -1 to 1; `None` without one.
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
    like: Sounds | None = None,
    unlike: Sounds | None = None,
    tagger: BaseTagger | str | os.PathLike[str] | None = None,
    limit: int = 20,
) -> list[Found]:
    """Find files in a table that `tag_library` wrote.

    Args:
        table: `.parquet` file, or a folder with several.
        where: condition as in SQL, e.g. `"guitar>0.5 and not vocals"`. Names are tags, also with spaces (`female vocal
            > 0.3`), and the table's columns (`duration_s < 60`); a tag alone means at least 0.5. Tags that were not
            kept count as 0. By default, all files.
        like: sound or several; files are sorted by how like them they are. The table must have embeddings.
        unlike: sound or several that files are to be unlike: the direction of their embeddings is subtracted.
        tagger: `Tagger` that made the embeddings, or what `load` takes. By default, the model that the table names.
        limit: files at most.

    Returns:
        Files, the most like first, otherwise in the order of the table.

    Raises:
        SearchError: there is no such table, the condition makes no sense, or the table has no embeddings of this model.
        UnknownTagError: the condition has a name that is neither a tag nor a column; the message offers near ones.
        AudioError: `like` or `unlike` cannot be used.
        MissingExtraError: DuckDB is not installed.
        ValueError: `limit` is no number of files.
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
            likeness, values, order = "NULL", list[Any](), ""
            sounds = Likeness(like, unlike)
            if sounds:
                embedding, same = _embedding(connection, table, sounds, tagger)
                # As arrays: the function for lists refuses a table in which some row has none.
                array = f"FLOAT[{len(embedding)}]"
                likeness = f"array_cosine_similarity(try_cast(embedding AS {array}), ?::{array})"
                values = [embedding]
                order = f"WHERE embedding IS NOT NULL AND {same} ORDER BY likeness DESC"
            rows = connection.execute(
                f"SELECT path, duration_s, tags, {likeness} AS likeness, title, start_s "
                f"FROM ({query.sql}) {order} LIMIT {limit}",
                values,
            ).fetchall()
        except duckdb.Error as error:
            said = " ".join(str(error).split("\n\n")[0].split())  # below it DuckDB shows a query that nobody wrote
            raise SearchError(f"{os.fspath(table)!r} cannot be searched for {where!r}: {said}") from error
    return [Found(path, seconds, query.shown(tags), *others) for path, seconds, tags, *others in rows]


def _open(connection: Any, table: Path) -> None:
    """Make the view `tagged` of the rows with tags."""
    if not table.exists():
        raise SearchError(f"There is no {str(table)!r}. Write one with: keras-musictag library DIR --out {table}")
    if table.suffix != ".parquet" and not table.is_dir():
        raise SearchError(f"Only Parquet can be searched; got {str(table)!r}. Give the library --out NAME.parquet.")
    pattern = glob.escape(str(table)) + ("/*.parquet" if table.is_dir() else "")
    files = pattern.replace("'", "''")
    connection.execute(f"CREATE VIEW library AS FROM read_parquet('{files}')")
    columns = {name for name, *_ in connection.execute("DESCRIBE library").fetchall()}
    if not columns.issuperset(set(COLUMNS) - set(_ADDED)):
        raise SearchError(f"{str(table)!r} is no table that tag_library wrote: it has no column {_first(columns)!r}.")
    added = "".join(f", {value} AS {name}" for name, value in _ADDED.items() if name not in columns)
    connection.execute(f"CREATE VIEW tagged AS SELECT *{added} FROM library WHERE error = ''")


def _first(columns: set[str]) -> str:
    return next(name for name in COLUMNS if name not in columns and name not in _ADDED)


class _Condition:
    """A condition on tags as a query on `tagged`.

    Attributes:
        sql: the query, with all columns of `tagged`.
    """

    def __init__(self, connection: Any, where: str) -> None:
        self._tags: list[str] = [
            tag
            for (tag,) in connection.execute("SELECT DISTINCT unnest(map_keys(tags)) FROM tagged ORDER BY 1").fetchall()
        ]
        self._named: list[str] = []  # tags in the condition; number 2 is the columns `tag 2` and `has 2`
        self.sql = "FROM tagged"
        if not where.strip():
            return
        text = f"SELECT * FROM tagged WHERE (\n{self._quoted(where)}\n)"
        (tree,) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchone()
        parsed = json.loads(tree)
        if parsed["error"]:
            raise SearchError(f"{where!r} is no condition: {parsed['error_message']}. Try: guitar > 0.5 and not vocals")
        if [statement["node"]["type"] for statement in parsed["statements"]] != ["SELECT_NODE"]:
            raise SearchError(f"{where!r} is more than a condition. Try: guitar > 0.5 and not vocals")
        self._name(parsed["statements"][0]["node"]["where_clause"], whether=True)
        (condition,) = connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(parsed)]).fetchone()
        columns = "".join(
            f', coalesce(map_extract(tags, {_literal(tag)})[1], 0) AS "tag {number}", "tag {number}" >= {_MEANT} '
            f'AS "has {number}"'
            for number, tag in enumerate(self._named)
        )
        self.sql = f"WITH tagged AS (SELECT *{columns} FROM main.tagged) {condition}"

    def shown(self, tags: dict[str, float]) -> dict[str, float]:
        """Of the tags of a file, those that the condition names, or the most probable."""
        if self._named:
            return {tag: tags.get(tag, 0.0) for tag in self._named}
        return dict(itertools.islice(tags.items(), _SHOWN))

    def _quoted(self, where: str) -> str:
        """Put names of tags that SQL would not take for one name (`female vocal`) into quotation marks."""
        odd = [tag for tag in self._tags if _is_odd(tag)]
        names = "|".join(re.escape(tag) for tag in sorted(odd, key=len, reverse=True))
        if not odd:
            return where
        pattern = rf"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?<!\w)({names})(?!\w)"""

        def quoted(found: re.Match[str]) -> str:
            text = found[0]
            if found[1]:
                is_null = text.lower() in _CONSTANTS and re.search(r"\bis(\s+not)?\s*$", where[: found.start()], re.I)
                return text if is_null else _literal(text, '"')
            # A tag that has quotation marks itself, unless it is another one with them around it.
            return _literal(text, '"') if text in odd and text[1:-1] not in self._tags else text

        return re.sub(pattern, quoted, where, flags=re.IGNORECASE)

    def _name(self, node: Any, whether: bool) -> None:
        """Put columns in the place of tags, in a part of the syntax tree.

        Args:
            node: the part.
            whether: it stands where yes or no is wanted.
        """
        if isinstance(node, list):
            for part in node:
                self._name(part, whether)
        elif isinstance(node, dict) and node.get("class") == "COLUMN_REF":
            (*above, name) = node["column_names"]
            if not above and name not in COLUMNS:
                node["column_names"] = [f"{'has' if whether else 'tag'} {self._number(name)}"]
        elif isinstance(node, dict):
            whether = node.get("type") in ("CONJUNCTION_AND", "CONJUNCTION_OR", "OPERATOR_NOT")
            for part in node.values():
                self._name(part, whether)

    def _number(self, name: str) -> int:
        """Number of a tag, however it is capitalised."""
        known = {tag.casefold(): tag for tag in reversed(self._tags)}
        tag = name if name in self._tags else known.get(name.casefold()) or known.get(name_of(name).casefold(), name)
        column_of(tag, self._tags)
        if tag not in self._named:
            self._named.append(tag)
        return self._named.index(tag)


def _is_odd(tag: str) -> bool:
    """Whether SQL would not take a tag for a name. Numbers, and signs alone, stay what they are in SQL."""
    return tag.lower() in _CONSTANTS or (
        re.fullmatch(r"[^\W\d]\w*", tag) is None and re.search(r"[^\W\d]", tag) is not None
    )


def _literal(text: str, mark: str = "'") -> str:
    return mark + text.replace(mark, 2 * mark) + mark


def _embedding(
    connection: Any,
    table: str | os.PathLike[str],
    sounds: Likeness,
    tagger: BaseTagger | str | os.PathLike[str] | None,
) -> tuple[list[float], str]:
    """The embedding of sounds, and the condition for rows that it can be compared with."""
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
            raise SearchError(f"{os.fspath(table)!r} has embeddings of {models}. Say which to use (tagger, --model).")
        tagger = models
    if isinstance(tagger, (str, os.PathLike)):
        from ...loading import load

        tagger = load(tagger)
    revision = tagger.weights_sha256, spec_digest(tagger.spec)
    if revision not in [tuple(others) for _, *others in made]:
        raise SearchError(
            f"The embeddings of {os.fspath(table)!r} are those of {models}, not of this {tagger.spec.name} "
            f"({tagger.weights_sha256[:12]}). Give the tagger that made them (tagger, --model)."
        )
    same = f"weights_sha256 = {_literal(revision[0])} AND spec_digest = {_literal(revision[1])}"
    return sounds.embedding(tagger), same
