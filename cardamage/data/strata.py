"""An order of images in which every beginning shows the classes in the proportions of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

_NOTHING = -1  # the label of images that show no class


def stratified_order(
    names: Sequence[str], labels: Sequence[Collection[int]], *, seed: int = 0
) -> list[int]:
    """Positions in ``names``, so ordered that every beginning is a stratified sample.

    Images that show the same classes make a stratum, shuffled by the hash of their names. Each next
    image comes from the stratum that brings the numbers of images of every class closest to their
    proportions, by the sum of squared differences over what is expected. A longer beginning holds
    all of a shorter one.

    Args:
        names: distinct names of the images; neither their order matters nor where they lie.
        labels: the classes each image shows, ids of 0 and more.
        seed: another seed shuffles the images of each stratum otherwise.
    """

    def luck(position: int) -> bytes:
        return hashlib.sha256(f"{seed}/{names[position]}".encode()).digest()

    strata: dict[tuple[int, ...], list[int]] = {}
    for position, shown in enumerate(labels):
        strata.setdefault(tuple(sorted(set(shown))) or (_NOTHING,), []).append(position)
    kinds = sorted(strata)
    waiting = [sorted(strata[kind], key=luck, reverse=True) for kind in kinds]
    classes = sorted({label for kind in kinds for label in kind})
    shows = np.array([[label in kind for label in classes] for kind in kinds], dtype=np.float64)
    totals = np.array([len(members) for members in waiting]) @ shows
    expected = totals / len(names) if names else totals
    taken = np.zeros_like(totals)
    order: list[int] = []
    while len(order) < len(names):
        cost = np.zeros(len(kinds))
        # Column by column: each step rounds alike on every machine, and a sum over a row need not.
        for number in range(len(classes)):
            off = taken[number] + shows[:, number] - expected[number] * (len(order) + 1)
            cost += off * off / expected[number]
        cost[[not members for members in waiting]] = np.inf
        chosen = int(cost.argmin())
        taken += shows[chosen]
        order.append(waiting[chosen].pop())
    return order
