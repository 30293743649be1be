"""What an audit keeps in a folder: all its findings, and sheets of photos that look alike."""

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from PIL import Image, ImageOps

from cardamage.data.coco.source import ImageSource
from cardamage.data.curation.audit import Audit
from cardamage.data.curation.copies import Photo
from cardamage.data.drawing import BACKDROP, contact_sheet, heading, stacked
from cardamage.data.images import decode_image, encoded
from cardamage.errors import DataError, counted
from cardamage.system.files import write_bytes, write_json

_SIDE_PX = 240
_COLUMNS, _ROWS = 5, 6
_MAX_GROUPS = 120


def keep(result: Audit, out: Path) -> list[Path]:
    """Write ``audit.json``, with every example, and ``look-alikes-<n>.jpg`` into a folder.

    A row of a sheet shows one group, those in several splits first. Other files in the folder stay;
    sheets of an earlier audit do not.

    Args:
        out: made where it is not there.

    Returns:
        What was written.
    """
    for old in out.glob("look-alikes-[0-9][0-9][0-9].jpg"):
        old.unlink()
    written = [out / "audit.json"]
    write_json(written[0], result.to_json(everything=True))
    groups = result.copies[:_MAX_GROUPS]
    with closing(ImageSource(result.source)) as files:
        for number, start in enumerate(range(0, len(groups), _ROWS), start=1):
            rows = [_row(files, group) for group in groups[start : start + _ROWS]]
            sheet = contact_sheet(rows, title_px=20)
            words = f"{counted(len(result.copies), 'group')} in {result.source.name}"
            width = max(sheet.width, 3 * _SIDE_PX)
            title = heading(f"Photos that look alike, sheet {number}", words, width_px=width)
            written.append(out / f"look-alikes-{number:03d}.jpg")
            write_bytes(written[-1], encoded(stacked(title, sheet), "JPEG", quality=90))
    return written


def _row(files: ImageSource, group: Sequence[Photo]) -> list[tuple[str, Image.Image]]:
    """A group's first photos under their splits and names."""
    cells = []
    for photo in group[:_COLUMNS]:
        picture = Image.new("RGB", (_SIDE_PX, _SIDE_PX), BACKDROP)
        with suppress(DataError):  # equal files may be equally broken
            content = files.read(photo.split, photo.name)
            thumbnail = ImageOps.contain(decode_image(content, name=photo.name), picture.size)
            picture.paste(thumbnail, ((_SIDE_PX - thumbnail.width) // 2, 0))
        cells.append((f"{photo.split}/{photo.name}", picture))
    return cells
