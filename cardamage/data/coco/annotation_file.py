"""The text of an annotation file: its lists, and the fields of their records."""

import json
import re
from contextlib import suppress
from typing import Any

from cardamage.errors import UNFIT_FOR_TEXT, shown

Id = int | str
"""What names an image, a category or an annotation. A text of digits is the number."""

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_LISTS = ("images", "annotations", "categories")


class BadJsonError(ValueError):
    """The text is not JSON, or not an object that holds the lists of a COCO file."""


def parsed(text: bytes) -> dict[str, Any]:
    """The content of an annotation file, whose three lists are lists.

    Raises:
        BadJsonError: it is none.
    """
    try:
        # "utf-8-sig" reads a byte order mark, which some programs write.
        content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_double_lists)
    except UnicodeDecodeError:
        raise BadJsonError("the text is not UTF-8: save it so") from None
    except json.JSONDecodeError as error:
        raise BadJsonError(f"{error.msg}, at character {error.pos}") from None
    except RecursionError:
        raise BadJsonError("nested too deeply") from None
    except BadJsonError:
        raise
    except ValueError:  # an integer of thousands of digits
        raise BadJsonError("a number is too long") from None
    if not isinstance(content, dict):
        raise BadJsonError("the top of the file is not a JSON object")
    for key in _LISTS:
        if key not in content:
            raise BadJsonError(f'the list "{key}" is missing')
        if not isinstance(content[key], list):
            raise BadJsonError(f'"{key}" is not a list')
    return content


def _without_double_lists(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a list given twice, ``json`` would keep the last and say nothing."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, value in pairs if isinstance(value, list)]
        if twice := next((key for key in _LISTS if keys.count(key) > 1), None):
            raise BadJsonError(f'"{twice}" is given twice')
    return values


class MalformedError(ValueError):
    """A field of a record is missing, or not as COCO has it."""


def identifier(item: Any, key: str) -> Id:
    """The id of an image or a category: a whole number, also as 3.0 or "3", or any other text.

    Raises:
        MalformedError: it is missing or neither.
    """
    value = _member(item, key)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    number = as_whole(value)
    if number is not None and abs(number) < 1 << 63:
        return number
    if isinstance(value, str) and value.strip() and not UNFIT_FOR_TEXT.search(value):
        return value
    raise MalformedError(f'"{key}" is {shown(value)}, and has to be a whole number or a text')


def side(item: Any, key: str) -> int | None:
    """A width or height in pixels, also as 64.0 or "64"; None where there is none.

    Raises:
        MalformedError: it is something else.
    """
    value = item.get(key)
    if isinstance(value, str) and len(value) < 20:
        with suppress(ValueError):
            value = float(value) if value.strip() else None
    if value is None:
        return None
    if (number := as_whole(value)) is None:
        raise MalformedError(f'"{key}" is {shown(value)}, and has to be a whole number of pixels')
    return number


def line_of_text(item: Any, key: str) -> str:
    """A name.

    Raises:
        MalformedError: it is missing, empty, or has line breaks or control characters.
    """
    value = _member(item, key)
    if not isinstance(value, str) or not value.strip() or UNFIT_FOR_TEXT.search(value):
        raise MalformedError(f'"{key}" is {shown(value)}, and has to be text on one line')
    return value


def as_whole(value: Any) -> int | None:
    """A whole number, also of a float such as 3.0; None for all else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int else None


def _member(item: Any, key: str) -> Any:
    if not isinstance(item, dict):
        raise MalformedError(f"it is {shown(item)}, and has to be an object")
    if key not in item:
        raise MalformedError(f'"{key}" is missing')
    return item[key]
