"""A share of every split."""

import hashlib
from collections.abc import Collection, Sequence
from typing import assert_never

import numpy as np

from cardamage.config.dataset import SubsetBy
from cardamage.data.coco.records import ImageRecord


def subset_of(
    images: tuple[ImageRecord, ...], share: float, by: SubsetBy
) -> tuple[ImageRecord, ...]:
    """The share of a split that is used, rounded, at least one image; by file name, as they come.

    It depends on the export alone, neither on the classes nor on an experiment's seed, and a larger
    share holds the images of a smaller one.

    Args:
        by: ``name`` takes the first; ``stratified`` keeps the share of images that show each
            category of the export.
    """
    count = max(1, round(share * len(images)))
    match by:
        case "name":
            return images[:count]
        case "stratified":
            labels = [{a.category_id for a in image.annotations} for image in images]
            order = stratified_order([image.file_name for image in images], labels)
            return tuple(images[position] for position in sorted(order[:count]))
        case _:
            assert_never(by)


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
