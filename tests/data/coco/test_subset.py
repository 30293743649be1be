"""The order in which every beginning is a stratified sample."""

from random import Random

import pytest

from cardamage.data.coco.subset import stratified_order


def drawn(count: int, seed: int) -> tuple[list[str], list[set[int]]]:
    """Names and labels: several of five classes on an image, the last of them rare."""
    random = Random(seed)
    chances = (0.5, 0.3, 0.2, 0.1, 0.02)
    labels = [{c for c, p in enumerate(chances) if random.random() < p} for _ in range(count)]
    return [f"{number}.jpg" for number in range(count)], labels


@pytest.mark.parametrize("seed", range(5))
def test_every_beginning_has_the_shares_of_the_whole(seed):
    names, labels = drawn(400, seed)
    order = stratified_order(names, labels)
    assert sorted(order) == list(range(400))
    for label in (*range(5), None):
        has = [label in shown if label is not None else not shown for shown in labels]
        so_far = 0
        for taken, position in enumerate(order, start=1):
            so_far += has[position]
            assert abs(so_far - taken * sum(has) / 400) < 2.5, (label, taken)


def test_it_depends_on_names_and_seed_only():
    names, labels = drawn(50, 1)
    order = [names[position] for position in stratified_order(names, labels)]
    turned = stratified_order(names[::-1], labels[::-1])
    assert [names[::-1][position] for position in turned] == order
    assert [names[p] for p in stratified_order(names, labels, seed=1)] != order


def test_by_hand():
    """One of a, two of b: after b, the a is owed most."""
    order = stratified_order(["x", "y", "z"], [{4}, {9}, {9}])
    assert [{0: 4, 1: 9, 2: 9}[position] for position in order] == [9, 4, 9]
    assert stratified_order([], []) == []
