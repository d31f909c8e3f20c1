"""Parquet files of strangers: types and sizes are checked before columns are unpacked.

A few bytes of run-length encoding stand for any number of values, and one long text for all rows.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from specmd_jax.core.errors import InputError

_ANY_VALUES = 1 << 22  # of a column in a batch of rows, however small the file
_VALUES_A_BYTE = 16  # beyond those
_ROWS = 4096  # unpacked at a time


def parquet_rows(
    path: Path, names: Collection[str], texts: Collection[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of a file, numbered from 1, of those columns that it has.

    Args:
      names: of columns of numbers, or of lists of numbers.
      texts: of columns of short texts.

    Raises:
      InputError: the file is damaged, a column is of another type, or it unpacks to more values
        than routing in a file of this size.
    """
    try:
        with pq.ParquetFile(path) as file:
            found = [name for name in (*names, *texts) if name in file.schema_arrow.names]
            for name in found:
                _check_type(name, file.schema_arrow.field(name).type, name in texts)
        most = max(_ANY_VALUES, _VALUES_A_BYTE * path.stat().st_size)
        # Texts as numbers of a dictionary: none is copied for every row.
        with pq.ParquetFile(path, read_dictionary=[n for n in found if n in texts]) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=found):
                columns = [_values(batch.column(name), most) for name in found]
                for row in zip(*columns, strict=True):
                    number += 1
                    yield number, dict(zip(found, row, strict=True))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"a damaged parquet file ({reason}): copy it again") from error


def _check_type(name: str, kind: pa.DataType, is_text: bool) -> None:
    holds = pa.types.is_dictionary if is_text else _is_list
    item = kind.value_type if holds(kind) else kind
    text = pa.types.is_string(item) or pa.types.is_large_string(item)
    number = pa.types.is_integer(item) or pa.types.is_floating(item)
    if not (text if is_text else number) and not pa.types.is_null(item):
        expected = "texts" if is_text else "numbers"
        raise InputError(f"column {name} is of type {str(kind)[:40]}: expected {expected}")


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _values(column: pa.Array, most: int) -> list[Any]:
    """The values of a column; of texts, each different one is unpacked once.

    Sizes are those of what was read: pyarrow's metadata of a damaged column ends the process.
    """
    if pa.types.is_dictionary(column.type):
        words = column.dictionary.to_pylist()
        return [None if at is None else words[at] for at in column.indices.to_pylist()]
    if _is_list(column.type) and len(column.flatten()) > most:
        raise InputError(
            f"a column unpacks to over {most} values, more than routing in a file of this size: "
            "it is made to fill the memory"
        )
    return column.to_pylist()
