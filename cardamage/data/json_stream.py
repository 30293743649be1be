"""Reading a COCO file item by item, so that memory holds one item and never the whole text.

The file of 100,000 images is hundreds of megabytes; parsed in one piece it takes several times as
much. Here the lists at the top of the file are walked, and each item is handed out as it comes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Generator, Iterator
from typing import Any, BinaryIO

_READ_CHARS = 1 << 20
MAX_ITEM_CHARS = 1 << 24
"""A longer item is refused: no image or annotation is, and parsed it takes many times the room."""

_SPACE = " \t\n\r"


class BadJsonError(ValueError):
    """The text is not JSON, or not an object that holds the lists asked for."""


def list_items(stream: BinaryIO, lists: Collection[str]) -> Generator[tuple[str, Any], None, None]:
    """Every item of the named lists of a JSON object, in the order of the file.

    Args:
        stream: UTF-8, with or without a byte order mark.
        lists: keys of the top object that must each hold a list; other keys are read past.

    Yields:
        The list's key and one item.

    Raises:
        BadJsonError: the text is not JSON, the top is no object, or a list is missing, given twice
            or no list.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        yield from _Walk(text).list_items(lists)
    except UnicodeDecodeError:
        raise BadJsonError("the text is not UTF-8") from None
    finally:
        text.detach()


class _Walk:
    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._decoder = json.JSONDecoder()
        self._buffer, self._at, self._before = "", 0, 0
        self._ended = False

    def list_items(self, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
        missing = set(lists)
        if self._peek() != "{":
            raise BadJsonError("the top of the file is not a JSON object")
        for _ in self._members("{", "}"):
            key = self._value()
            if not isinstance(key, str):
                raise self._broken("a key is not a string")
            self._take(":")
            if key not in lists:
                self._value()
                continue
            if key not in missing:
                raise BadJsonError(f'"{key}" is given twice')
            missing.discard(key)
            if self._peek() != "[":
                raise BadJsonError(f'"{key}" is not a list')
            for _ in self._members("[", "]"):
                yield key, self._value()
        if self._peek():
            raise self._broken("text follows the end")
        if missing:
            raise BadJsonError(f'the list "{min(missing)}" is missing')

    def _members(self, opening: str, closing: str) -> Iterator[None]:
        """Stop before each member of an object or a list; the caller reads it."""
        self._take(opening)
        if self._peek() == closing:
            self._take(closing)
            return
        while True:
            yield
            if self._peek() == closing:
                self._take(closing)
                return
            self._take(",")

    def _take(self, char: str) -> None:
        if self._peek() != char:
            raise self._broken(f'expected "{char}"')
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            while self._at < len(self._buffer):
                if (char := self._buffer[self._at]) not in _SPACE:
                    return char
                self._at += 1
            if self._ended:
                return ""
            self._fill()

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._at > MAX_ITEM_CHARS:
                    raise self._broken(
                        f"an item has more than {MAX_ITEM_CHARS >> 20} MiB"
                    ) from None
                if self._ended:
                    raise self._broken(error.msg, error.pos - self._at) from None
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except ValueError:  # an integer of thousands of digits
                raise self._broken("a number is too long") from None
            else:
                if end < len(self._buffer) or self._ended:
                    self._at = end
                    return value
            self._fill()  # the item, or the number at the very end, may go on

    def _fill(self) -> None:
        rest = self._buffer[self._at :]
        self._before += self._at
        more = self._text.read(max(_READ_CHARS, len(rest)))  # doubling keeps retries linear
        self._buffer, self._at, self._ended = rest + more, 0, not more

    def _broken(self, why: str, offset: int = 0) -> BadJsonError:
        return BadJsonError(f"{why}, at character {self._before + self._at + offset}")
