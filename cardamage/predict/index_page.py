"""Pages over folders of sheets, such as that of predictions: each with words on its photo."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from cardamage.errors import plain
from cardamage.runs.tables import Row

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem }
main { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)) }
figure { margin: 0 }
img { max-width: 100%; border: 1px solid #d0d7de }
p, figcaption { color: #57606a }
"""


def index_page(
    sheets: Sequence[tuple[str, Row]], class_names: Sequence[str], facts: Mapping[str, object]
) -> str:
    """One HTML page, which asks nothing of the network, and shows the files beside it.

    Args:
        sheets: file name of each photo's sheet, and the photo's row of the table.
        class_names: by class id, background first.
        facts: what predicted: run, epoch, checkpoint.
    """
    title = f"Predictions of {facts['run']}, epoch {facts['epoch']}"
    words = f"{len(sheets)} photos. predictions.csv beside this page has all numbers."
    figures = [(name, str(row["image"]), _found(row, class_names)) for name, row in sheets]
    return figures_page(title, words, figures)


def figures_page(title: str, words: str, figures: Sequence[tuple[str, str, str]]) -> str:
    """One HTML page of pictures, which asks nothing of the network.

    Args:
        words: what stands under the title.
        figures: of each its file beside the page, its title, and words on it.
    """
    shown = "\n".join(_figure(*figure) for figure in figures)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
<p>{_text(words)}</p>
<main>
{shown}
</main>
</body>
</html>
"""


def _found(row: Row, class_names: Sequence[str]) -> str:
    shares = {name: row[f"share[{name}]"] for name in class_names[1:]}
    found = [
        f"{name} {100 * share:.1f} %"
        for name, share in shares.items()
        if isinstance(share, float) and share > 0
    ]
    dice = row.get("dice")
    if isinstance(dice, float) and not math.isnan(dice):
        found.append(f"Dice {dice:.3f}")
    return ", ".join(found) or "nothing found"


def _figure(file: str, title: str, words: str) -> str:
    link, name = escape(quote(file)), _text(title)
    return (
        f'<figure><a href="{link}"><img src="{link}" alt="{name}" loading="lazy"></a>'
        f"<figcaption><b>{name}</b> {_text(words)}</figcaption></figure>"
    )


def _text(words: str) -> str:
    return escape(plain(words))
