"""`--map FIELD=COLUMN`: renames a record's columns to the fields that the user gives, for one or several schemas."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from data.prepare.schemas.chats import CHATS, DIALOGUES, TEXTS
from data.tables import DataError

Columns = tuple[tuple[str, str], ...]

_ALONE: Final = (*TEXTS, *CHATS, *DIALOGUES)
"""Fields each of which is a complete schema."""


@lru_cache(maxsize=16)
def schemas_of(columns: Columns) -> tuple[dict[str, str], ...]:
    """Returns the schemas that `(field, column)` pairs define, each a dict from field to column.

    The first columns of all fields are one schema, the second columns another, and so on; a field with fewer columns
    uses its last one in all further schemas. Texts and conversations are schemas of one field.
    """
    given: dict[str, list[str]] = {}
    for field, column in columns:
        given.setdefault(field, []).append(column)
    together = {field: names for field, names in given.items() if field not in _ALONE}
    alone = [{field: name} for field, names in given.items() if field in _ALONE for name in names]
    count = max(map(len, together.values()), default=0)
    found = [{field: names[min(index, len(names) - 1)] for field, names in together.items()} for index in range(count)]
    return (*found, *alone)


def mapped(record: Mapping[str, Any], columns: Columns) -> Mapping[str, Any]:
    """Returns the record with its mapped columns renamed to their fields; unchanged if it has none of them.

    Raises:
        DataError: the record has some columns of a schema but not all, or two columns for one field.
    """
    if not any(column in record for _, column in columns):
        return record
    schemas = schemas_of(columns)
    whole = [schema for schema in schemas if all(column in record for column in schema.values())]
    if not whole:
        nearest = max(schemas, key=lambda schema: sum(column in record for column in schema.values()))
        field, column = next(item for item in nearest.items() if item[1] not in record)
        raise DataError(f"has no column '{column}', which --map gives to {field}")
    named: dict[str, str] = {}
    for schema in whole:
        for field, column in schema.items():
            if named.setdefault(field, column) != column:
                raise DataError(
                    f"has the columns '{named[field]}' and '{column}', both of which --map gives to {field}"
                )
    taken = set(named.values())
    rest = {name: value for name, value in record.items() if name not in taken}
    return {**rest, **{field: record[column] for field, column in named.items()}}
