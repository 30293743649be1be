"""Class names, ids and colours, and how a dataset's categories become classes.

Id 0 is the background; the classes of the config follow as 1, 2, ... in their order.
"""

BACKGROUND = "background"
MAX_CLASSES = 255
"""Ids are stored in 8-bit grey PNGs, and 0 is the background."""

# The first six are Paul Tol's "bright" scheme. Each of the others was chosen to differ most from
# all before it, in CIELAB, with normal sight and with simulated protanopia and deuteranopia alike.
_COLOURS = (
    (0, 0, 0),
    (238, 102, 119),
    (68, 119, 170),
    (204, 187, 68),
    (34, 136, 51),
    (102, 204, 238),
    (170, 51, 119),
    (68, 0, 255),
    (119, 255, 0),
    (153, 119, 255),
    (0, 255, 204),
    (221, 0, 0),
    (119, 68, 51),
    (255, 0, 187),
    (221, 119, 0),
    (255, 187, 153),
    (153, 238, 119),
    (170, 0, 204),
    (221, 153, 187),
    (0, 170, 153),
    (85, 68, 153),
    (187, 170, 255),
    (0, 68, 238),
    (119, 136, 85),
    (136, 102, 17),
)


def colour(class_id: int) -> tuple[int, int, int]:
    """RGB, 0..255, of a class id; ids beyond the table get evenly turned hues."""
    if class_id < len(_COLOURS):
        return _COLOURS[class_id]
    turned = (class_id * 97) % 360
    sector, rest = divmod(turned, 60)
    rising = 40 + rest * 3
    falling = 220 - rest * 3
    return (
        (220, rising, 40),
        (falling, 220, 40),
        (40, 220, rising),
        (40, falling, 220),
        (rising, 40, 220),
        (220, 40, falling),
    )[sector]
