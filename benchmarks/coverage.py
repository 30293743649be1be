"""How often the report's intervals hold the true score: coverage by simulation.

    python -m benchmarks.coverage --images 100 --trials 2000

A population of photos is drawn once: a third has no damage; the damaged share of the others is
lognormal, so that a few photos hold most of the pixels; how much of it is found, and how much is
marked falsely, varies from photo to photo. The population's own scores are the truth. Each trial
draws a test split from it and asks whether the interval holds the truth; of a difference, between
two models on the same photos. Without systematic error 95 % of the trials do.
"""

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cardamage.evaluation.intervals import difference, interval, resample
from cardamage.evaluation.metrics import HEADLINES, scores
from cardamage.evaluation.results import TestResult

NAMES = ("background", "scratch", "dent")
PIXELS = 240 * 240
POPULATION = 100_000


def population(generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Confusion counts of two models on the same photos: int64 of shape (N, 3, 3) each."""
    damaged = generator.random((POPULATION, 2)) < (0.5, 0.35)
    share = np.minimum(np.exp(generator.normal(-4.0, 1.0, (POPULATION, 2))), 0.4)
    true = np.round(damaged * share * PIXELS).astype(np.int64)
    ease = generator.normal(0, 1, (POPULATION, 2))
    return _predict(generator, true, ease, 0.9), _predict(generator, true, ease, 0.7)


def _predict(
    generator: np.random.Generator,
    true: NDArray[np.int64],
    ease: NDArray[np.float64],
    skill: float,
) -> NDArray[np.int64]:
    """What a model makes of photos that are easy or hard for every model alike."""
    own = generator.normal(0, 0.7, true.shape)
    found = np.round(true / (1 + np.exp(-skill - ease - own))).astype(np.int64)
    confused = np.round(0.1 * found).astype(np.int64)
    false = np.round(np.exp(generator.normal(-5.5, 1.2, true.shape)) * PIXELS).astype(np.int64)
    false *= generator.random(true.shape) < 0.5
    counts = np.zeros((len(true), 3, 3), np.int64)
    for i, other in ((1, 2), (2, 1)):
        of_class = slice(None), i - 1
        counts[:, i, i] = (found - confused)[of_class]
        counts[:, i, other] = confused[of_class]
        counts[:, i, 0] = (true - found)[of_class]
        counts[:, 0, i] = false[of_class]
    counts[:, 0, 0] = PIXELS - counts.sum(axis=(1, 2))
    return counts


def _result(counts: NDArray[np.int64]) -> TestResult:
    images = len(counts)
    return TestResult(
        epoch=1,
        weights_sha256="",
        fingerprint="",
        class_names=NAMES,
        keys=np.arange(images).astype(np.str_),
        counts=counts,
        loss=counts[:, 1:, 0].sum(axis=1) / PIXELS,
        map_samples=np.zeros(0, np.int64),
        maps=np.zeros((0, 1, 1), np.uint8),
    )


def main() -> None:
    """Simulate, and print how many trials held the truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100, help="photos of each test split")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    models = [_result(counts) for counts in population(generator)]
    truths = [scores(model.counts, model.loss, NAMES) for model in models]
    names = [*HEADLINES, *(name for name in truths[0] if "[" in name)]
    held = dict.fromkeys([*names, *(f"difference of {name}" for name in HEADLINES)], 0)
    for _ in range(arguments.trials):
        drawn = generator.integers(0, POPULATION, arguments.images)
        splits = [
            resample(replace(m, counts=m.counts[drawn], loss=m.loss[drawn], keys=m.keys[drawn]))
            for m in models
        ]
        for name in names:
            found = interval(splits[0], name)
            held[name] += found.low <= truths[0][name] <= found.high
        for name in HEADLINES:
            found = interval(difference(*splits), name)
            held[f"difference of {name}"] += (
                found.low <= truths[0][name] - truths[1][name] <= found.high
            )
    print(f"{arguments.images} photos, {arguments.trials} trials; expected 95 %")
    for name, times in held.items():
        print(f"{name:28} {100 * times / arguments.trials:5.1f} %")


if __name__ == "__main__":
    main()
