"""Text from foreign files and folders, made fit for one line of a terminal, a log or a page."""

from __future__ import annotations

import re

UNFIT_FOR_TEXT = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that command a terminal, break a line, turn text around, or are not in UTF-8."""


def plain(text: str) -> str:
    r"""``text`` with every character of :data:`UNFIT_FOR_TEXT` as an escape, such as ``\x1b``."""
    return UNFIT_FOR_TEXT.sub(lambda found: ascii(found[0])[1:-1], text)
