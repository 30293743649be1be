"""How a report writes scores: what they are called, and their digits."""

import math
from collections.abc import Sequence
from os.path import commonprefix

_TITLES = {
    "loss": "Loss",
    "dice": "Dice",
    "iou": "IoU",
    "accuracy": "Accuracy",
    "dice_fg": "Foreground Dice",
    "iou_fg": "Foreground IoU",
    "mdice": "Mean Dice",
    "miou": "Mean IoU",
    "precision": "Precision",
    "recall": "Recall",
}
DEFINITIONS = {
    "loss": "Mean over images of each image's loss; lower is better",
    "dice": "2TP / (2TP + FP + FN) of any foreground in each image, then the mean over images",
    "iou": "TP / (TP + FP + FN) of any foreground in each image, then the mean over images",
    "accuracy": "Share of all pixels whose class is exactly right, background included",
    "dice_fg": "Dice of any foreground, from pixels summed over the split",
    "iou_fg": "IoU of any foreground, from pixels summed over the split",
    "mdice": "Mean over the classes of their Dice, from pixels summed over the split",
    "miou": "Mean over the classes of their IoU, from pixels summed over the split",
    "precision": "Of the pixels predicted as the class, the share that is",
    "recall": "Of the pixels of the class, the share that is found",
    "share of pixels": "Of all pixels of the split, the share whose true class it is",
    "damages found": "Damages that predictions of their class cover to a quarter or more",
    "marks that are false": "Marks of which less than a quarter lies on damage of their class",
    "damaged photos noticed": "Sensitivity: photos with damage in which the model is sure of some",
    "sound photos left alone": "Specificity: photos without damage in which it is sure of none",
}
"""What a number is, shown where a pointer rests on its name."""

UNDEFINED = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def title(column: str) -> str:
    """What a headline score is called in figures and tables; its column unless named here."""
    return _TITLES.get(column, column)


def rule_words(select_by: str) -> str:
    """The rule that chooses an epoch, for people."""
    return f"{'lowest' if select_by == 'loss' else 'highest'} validation {in_sentence(select_by)}"


def in_sentence(column: str) -> str:
    """What a score is called inside a sentence."""
    return column if column == "loss" else title(column)


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


def in_percent(value: float) -> str:
    """A share of 1 in whole percent; a dash where undefined."""
    return UNDEFINED if math.isnan(value) else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def interval_in_percent(low: float, high: float) -> str:
    """The two bounds of an interval of a share, likewise."""
    if math.isnan(low) or math.isnan(high):
        return UNDEFINED
    return f"{100 * low:.0f}\N{EN DASH}{in_percent(high)}"


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


def common_beginning(names: Sequence[str]) -> str:
    """What all names begin with, up to a hyphen or slash; empty where no word would be left."""
    shared = commonprefix(list(names))  # noqa: RUF071 - of text, not of paths
    shared = shared[: max(shared.rfind("-"), shared.rfind("/")) + 1]
    rests = [name.removeprefix(shared) for name in names]
    return shared if len(names) > 1 and all(rest[:1].isalpha() for rest in rests) else ""


def each_of_ten(part: float, whole: float, things: str) -> str:
    """A share in words, as in "about 7 of 10 damaged pixels"; "no damaged pixels there are"."""
    if whole == 0:
        return f"nothing, for there are no {things}"
    share = part / whole
    if share in (0, 1):
        return f"{'all' if share else 'none of the'} {things}"
    if share < 0.05:
        return f"fewer than 1 of 20 {things}"
    if share > 0.95:
        return f"more than 19 of 20 {things}"
    return f"about {round(10 * share)} of 10 {things}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words as a sentence lists them."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def bytes_of(number: int) -> str:
    """A size in kB, MB or GB of 1000 each, three digits."""
    for power, unit in ((3, "GB"), (2, "MB")):
        if number >= 1000**power:
            return f"{number / 1000**power:.3g} {unit}"
    return f"{number / 1000:.3g} kB"


def p_value(p: float) -> str:
    """Two digits, and never a smaller one than the replicates bear."""
    if math.isnan(p):
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
