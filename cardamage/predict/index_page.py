"""The page over a folder of predictions: every sheet, with what was found on its photo."""

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
    title = _text(f"Predictions of {facts['run']}, epoch {facts['epoch']}")
    figures = "\n".join(_figure(name, row, class_names) for name, row in sheets)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>{len(sheets)} photos. <code>predictions.csv</code> beside this page has all numbers.</p>
<main>
{figures}
</main>
</body>
</html>
"""


def _figure(sheet: str, row: Row, class_names: Sequence[str]) -> str:
    shares = {name: row[f"share[{name}]"] for name in class_names[1:]}
    found = [
        f"{name} {100 * share:.1f} %"
        for name, share in shares.items()
        if isinstance(share, float) and share > 0
    ]
    dice = row.get("dice")
    if isinstance(dice, float) and not math.isnan(dice):
        found.append(f"Dice {dice:.3f}")
    link, name = escape(quote(sheet)), _text(str(row["image"]))
    return (
        f'<figure><a href="{link}"><img src="{link}" alt="{name}" loading="lazy"></a>'
        f"<figcaption><b>{name}</b> {_text(', '.join(found) or 'nothing found')}</figcaption>"
        f"</figure>"
    )


def _text(words: str) -> str:
    return escape(plain(words))
