"""CSV tables of scores, such as ``metrics.csv``: floats to the last bit, NaN as an empty field."""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cardamage.errors import RunError
from cardamage.system.files import write_text

Row = Mapping[str, float | int | str]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Publish ``rows``; the columns are the keys of the first row, in its order.

    The folder has to be there: should the run directory have vanished, no other is begun.
    """
    stream = io.StringIO()
    columns = list(rows[0]) if rows else []
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _field(value) for key, value in row.items()})
    write_text(path, stream.getvalue(), makes_folder=False)


def read_table(
    path: Path, columns: Collection[str] | None = None
) -> list[dict[str, float | int | str]]:
    """The rows of a table: integers, floats (an empty field is NaN) and text told apart.

    Args:
        columns: read only those of them that there are.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; run the stage that writes it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if any(None in row or None in row.values() for row in rows):
        raise RunError(f"{path} is damaged: a row has more or fewer fields than the header")
    wanted = [key for key in (rows[0] if rows else ()) if columns is None or key in columns]
    return [{key: _value(row[key]) for key in wanted} for row in rows]


def _field(value: float | str) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else str(value)


def _value(text: str) -> float | int | str:
    if text == "":
        return math.nan
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
