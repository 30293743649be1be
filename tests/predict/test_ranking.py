"""Uncertain photos come first, and of those that look alike one."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from cardamage.predict.ranking import choose, look, uncertainty
from cardamage.runs.tables import read_table


def test_uncertainty_is_that_of_the_least_certain_pixels():
    sure = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 10, 10)
    assert uncertainty(sure).tolist() == [0]
    torn = sure.clone()
    torn[0, :, 0, :5] = 0.5  # 5 of 100 pixels
    assert uncertainty(torn).tolist() == pytest.approx([1])
    torn[0, :, 0, 4] = torch.tensor([1.0, 0.0])
    assert uncertainty(torn).tolist() == pytest.approx([0.8])
    third = torch.full((2, 3, 4, 4), 1 / 3)
    assert uncertainty(third).tolist() == pytest.approx([1, 1])


def test_looks_are_at_most_one_apart_in_colour_and_in_classes():
    pixels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    pixels[1] = 255
    same = torch.tensor([1.0, 0.0])[None, :, None, None].expand(2, 2, 16, 16)
    black, white = look(pixels, same)
    assert np.linalg.norm(black - white) == pytest.approx(1)
    other = torch.stack([same[0], same[0].flip(0)])
    first, second = look(torch.zeros_like(pixels), other)
    assert np.linalg.norm(first - second) == pytest.approx(1)


def test_what_looks_like_a_chosen_one_comes_later():
    looks = np.array([[0.0], [0.01], [1.0], [0.5]], np.float32)
    chosen = choose(np.array([0.9, 0.89, 0.5, 0.6]), looks, 4)
    assert [number for number, _ in chosen] == [0, 2, 3, 1]
    assert chosen[0][1] == math.inf
    assert [distance for _, distance in chosen[1:]] == pytest.approx([1, 0.5, 0.01])
    assert len(choose(np.array([0.9, 0.1]), looks[:2], 1)) == 1
    copies = np.zeros((3, 1), np.float32)  # all distances are 0: each is chosen once
    assert sorted(n for n, _ in choose(np.ones(3), copies, 5)) == [0, 1, 2]


def test_the_command_lists_the_uncertain_photo_first(bright):
    photos = bright.folder / "photos"
    # The network's two likeliest classes are equally likely in a certain grey.
    for name, value in {"dark": 0, "grey": 115, "white": 255}.items():
        Image.new("RGB", (40, 30), (value,) * 3).save(photos / f"{name}.png")
    words = ("bright", "--images", "photos", "--number", 2, "--out", "next.csv")
    printed = bright.succeeds("jobs/rank.py", *words).splitlines()
    assert printed[0] == "photos/grey.png"
    assert len(printed) == 2
    first, second = read_table(bright.folder / "next.csv")
    assert first["rank"] == 1
    assert first["uncertainty"] > second["uncertainty"]
    assert "--number 0" in bright.refuses("jobs/rank.py", *words[:3], "--number", 0)
