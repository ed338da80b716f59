"""Records to rows and back: one column a field, JSON columns as canonical text.

Knows the shapes of dataclasses, nothing of particular tables; `store.interactions` packs its token blob itself.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from store.audit import canonical_json
from store.connection import Connection, StoreError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)
else:
    R = TypeVar("R")

Row = dict[str, Any]

MIN_PREFIX = 4


def to_row(record: "DataclassInstance", **ready: Any) -> Row:
    """`ready` holds columns that the caller has encoded itself."""
    return {f.name: encode(getattr(record, f.name)) for f in fields(record) if f.name not in ready} | ready


def from_row(kind: type[R], row: Mapping[str, Any], **ready: Any) -> R:
    """`ready` holds fields that the caller has decoded itself."""
    return kind(**{name: decode(row[name]) for name, decode in _decoders(kind) if name not in ready}, **ready)


def encode(value: Any) -> Any:
    """What SQLite stores for a field's value."""
    match value:
        case StrEnum():
            return str(value)
        case bool():
            return int(value)
        case Mapping() | tuple():
            return canonical_json(value).decode()
        case _:
            return value


def insert(connection: Connection, table: str, row: Row) -> None:
    columns, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
    # Table and columns are names of this package's own code; values are bound.
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values()))  # noqa: S608


def fetch(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """All rows at once: a half-read cursor would keep the view, and with it the WAL, open."""
    cursor = connection.execute(sql, list(parameters))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def fetch_one(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
    return next(iter(fetch(connection, sql, parameters)), None)


def fetch_number(connection: Connection, sql: str, parameters: Sequence[Any] = ()) -> int:
    return int(connection.execute(sql, list(parameters)).fetchone()[0])


def fetch_by_prefix(connection: Connection, table: str, wanted: str) -> Row | None:
    """The row with this id, or the only one whose id begins with it."""
    # Not LIKE: `wanted` is what a person typed and may hold % or _.
    sql = f"SELECT * FROM {table} WHERE id >= ? AND substr(id, 1, length(?)) = ? ORDER BY id LIMIT 6"  # noqa: S608
    rows = fetch(connection, sql, [wanted, wanted, wanted])
    if rows and rows[0]["id"] == wanted:
        return rows[0]
    if rows and len(wanted) < MIN_PREFIX:
        raise StoreError(f'"{wanted}" is too short to name one of {table}; give at least {MIN_PREFIX} characters')
    if len(rows) > 1:
        found = ", ".join(str(row["id"]) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
        raise StoreError(f'"{wanted}" could be any of {found}; give more characters')
    return rows[0] if rows else None


@cache
def _decoders(kind: type[Any]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    hints = get_type_hints(kind)
    return tuple((f.name, _decoder(hints[f.name])) for f in fields(kind))


def _decoder(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) in (Union, UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        decode = _decoder(inner)
        return lambda value: None if value is None else decode(value)
    if get_origin(hint) is tuple:
        return _tuple_decoder(get_args(hint)[0])
    if get_origin(hint) is Mapping:
        return json.loads
    if isinstance(hint, type) and issubclass(hint, (StrEnum, bool, float)):
        return hint
    return lambda value: value


def _tuple_decoder(item: Any) -> Callable[[Any], Any]:
    if isinstance(item, type) and is_dataclass(item):
        return lambda text: tuple(item(**fields_of) for fields_of in json.loads(text))
    return lambda value: tuple(json.loads(value))
