"""How a report writes scores: what they are called, and their digits."""

import math

_TITLES = {
    "loss": "Loss",
    "dice": "Dice",
    "iou": "IoU",
    "accuracy": "Accuracy",
    "dice_fg": "Foreground Dice",
    "iou_fg": "Foreground IoU",
    "mdice": "Mean Dice",
    "miou": "Mean IoU",
}
UNDEFINED = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def title(column: str) -> str:
    """What a headline score is called in figures and tables; its column unless named here."""
    return _TITLES.get(column, column)


def score(value: float) -> str:
    """Three decimals; a dash where undefined."""
    if math.isnan(value):
        return UNDEFINED
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    return f"{value:.3f}".replace("-", _MINUS)


def signed(value: float) -> str:
    """Three decimals and always a sign; a dash where undefined."""
    text = score(value)
    return f"+{text}" if value > 0 else text


def percent(value: float) -> str:
    """A share of 1 in percent, more digits the smaller it is; a dash where undefined."""
    if math.isnan(value):
        return UNDEFINED
    digits = 0 if value == 0 else 2 if value < 0.01 else 1
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def interval(low: float, high: float) -> str:
    """The two bounds of an interval; one dash where undefined."""
    if math.isnan(low) or math.isnan(high):
        return UNDEFINED
    between = " to " if low < 0 else "\N{EN DASH}"  # a dash beside a minus is hard to read
    return f"{score(low)}{between}{score(high)}"


def size(image_size: tuple[int, int]) -> str:
    """Height and width in pixels."""
    height, width = image_size
    return f"{height} \N{MULTIPLICATION SIGN} {width}"


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def shortened(name: str, length: int = 28) -> str:
    """A long name with its middle left out, for the inside of figures."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"
