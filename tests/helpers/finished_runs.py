"""Finished runs for the report's tests, written with the project's own writers."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from cardamage.config import loading
from cardamage.data.drawing import layer_png
from cardamage.data.shards import manifest, tar
from cardamage.evaluation.damages import BINS, UNIT, Damages, count_damages
from cardamage.evaluation.disagreements import find_disagreements
from cardamage.evaluation.metrics import scores
from cardamage.evaluation.results import TestResult, write_result
from cardamage.labels import BACKGROUND
from cardamage.runs.paths import RunPaths, ShardPaths
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import write_table
from cardamage.system.console import EventLog
from cardamage.system.files import sha256_of, write_bytes, write_json, write_text
from tests.helpers.markers import write_stage

CLASSES = ("scratch", "dent")


def scene(number: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A drawn car door and its damages: image (size, size, 3) and mask (size, size), uint8."""
    generator = np.random.default_rng(number)
    paint = tuple(int(c) for c in generator.integers(60, 200, 3))
    image = Image.new("RGB", (size, size), (206, 214, 222))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, size * 3 // 4, size, size), fill=(92, 94, 98))
    draw.rounded_rectangle(
        (size // 16, size // 4, size - size // 16, size * 13 // 16), size // 8, fill=paint
    )
    mask = Image.new("L", (size, size), 0)
    for class_id in range(1, classes):
        if (number + class_id) % 4 == 0:
            continue  # not every image has every class
        x, y = generator.integers(size // 5, size * 3 // 5, 2)
        width, height = generator.integers(size // 10, size // 4, 2)
        box = (int(x), int(y), int(x + width), int(y + height))
        draw.ellipse(box, fill=tuple(max(0, c - 45) for c in paint))
        ImageDraw.Draw(mask).ellipse(box, fill=class_id)
    return np.asarray(image), np.asarray(mask)


def predicted(mask: np.ndarray, quality: float, seed: int) -> np.ndarray:
    """A prediction of about this quality: the mask shifted, or now and then nothing."""
    generator = np.random.default_rng(seed)
    shift = generator.integers(0, 1 + round((1 - quality) * mask.shape[0] / 6), 2)
    moved = np.roll(mask, tuple(shift), (0, 1))
    keep = generator.random() < quality + 0.3
    return moved if keep else np.zeros_like(moved)


def write_shards(
    folder: Path, images: int, size: int, class_names: tuple[str, ...], file_name: str
) -> str:
    """Packed images of one split called test; returns their fingerprint."""
    paths = ShardPaths(folder)
    samples, pixels = [], np.zeros(len(class_names), np.int64)
    for number in range(images):
        image, mask = scene(number, size, len(class_names))
        pixels += np.bincount(mask.ravel(), minlength=len(class_names))
        streams = [io.BytesIO(), io.BytesIO()]
        for array, stream in zip((image, mask), streams, strict=True):
            Image.fromarray(array).save(stream, "PNG")
        info = {"file_name": file_name.format(number), "width": size, "height": size}
        image_file, mask_file = (stream.getvalue() for stream in streams)
        info_file = json.dumps(info).encode()
        samples.append({"png": image_file, "json": info_file, "seg.png": mask_file})
    contents = tar.write_shard(paths.shard("test", 0), 0, samples)
    index = io.BytesIO()
    np.save(index, contents.index)
    write_bytes(paths.index("test"), index.getvalue())
    path = paths.shard("test", 0)
    record = manifest.SplitRecord(
        samples=images,
        shards=[
            manifest.ShardRecord(samples=images, bytes=path.stat().st_size, sha256=sha256_of(path))
        ],
        index_sha256=sha256_of(paths.index("test")),
        pixels=pixels.tolist(),
        overlapped_pixels=0,
    )
    fingerprint = hashlib.sha256(f"{images} {size} {class_names}".encode()).hexdigest()
    written = manifest.Manifest(
        version=manifest.VERSION,
        dataset="doors",
        fingerprint=fingerprint,
        class_names=list(class_names),
        options={},
        image_size=(size, size),
        rasteriser="pycocotools",
        encoder="Pillow",
        splits={"test": record},
    )
    manifest.write_manifest(paths, written)
    return fingerprint


def make_run(
    root: Path,
    *,
    epochs: int = 6,
    images: int = 10,
    size: int = 32,
    classes: tuple[str, ...] = CLASSES,
    level: float = 0.75,
    overfits_after: int | None = None,
    finds_nothing: bool = False,
    overlays: int = 3,
    file_name: str = "door {}.jpg.rf.0a1b.jpg",
    overrides: tuple[str, ...] = (),
) -> RunPaths:
    """A run directory whose four stages are done, with shards in a folder beside it.

    Args:
        root: the run directory; its name is the run's.
        epochs: trained and tested.
        images: in the test split.
        size: height and width in pixels.
        classes: foreground classes.
        level: how good the last predictions are, 0..1.
        overfits_after: the epoch from which the validation loss rises.
        finds_nothing: the model predicts background only.
        overlays: images whose predicted maps are kept.
        file_name: of the original images, with their number in it.
        overrides: laid over the config.
    """
    run = RunPaths(root)
    names = (BACKGROUND, *classes)
    experiment = loading.parse(
        {
            "name": "".join(c if c.isalnum() else "-" for c in root.name),
            "data": {"source": "data/doors", "classes": list(classes), "image_size": [size, size]},
            "model": {"name": "unet2"},
            "optim": {"name": "adam", "lr": 0.001},
            "train": {"epochs": epochs, "batch_size": 4},
            "test": {"select_by": "dice_fg"},
        },
        overrides,
    )
    run.test_table("test").parent.mkdir(parents=True)
    write_text(run.config, experiment.to_yaml())
    folder = root.parent / f"shards {images} {size} {len(classes)}"
    folder.mkdir(exist_ok=True)
    fingerprint = write_shards(folder, images, size, names, file_name)
    masks = [scene(number, size, len(names))[1] for number in range(images)]
    generator = np.random.default_rng(len(root.name))
    events = EventLog(run.events)
    metrics_rows, test_rows = [], []
    for epoch in range(1, epochs + 1):
        quality = 0.0 if finds_nothing else level * (1 - np.exp(-epoch / 2.5))
        train = _epoch_scores(masks, quality + 0.06, epoch, names, generator, finds_nothing)
        train["loss"] = 0.2 + np.exp(-epoch / 3)
        late = max(0, epoch - overfits_after) if overfits_after else 0
        valid = _epoch_scores(masks, quality, epoch + 100, names, generator, finds_nothing)
        valid["loss"] = 0.3 + np.exp(-epoch / 3) + 0.05 * late + generator.normal(0, 0.004)
        row = {"epoch": epoch}
        for score in ("loss", "dice", "iou", "accuracy", "dice_fg", "iou_fg", "mdice", "miou"):
            row |= {f"train_{score}": train[score], f"val_{score}": valid[score]}
        metrics_rows.append(row | {f"val_{k}": v for k, v in valid.items() if "[" in k})
        maps = [
            _map(mask, quality, epoch * 1000 + i, finds_nothing) for i, mask in enumerate(masks)
        ]
        counts = np.stack([_counts(m, p, len(names)) for m, p in zip(masks, maps, strict=True)])
        loss = 0.3 + np.exp(-epoch / 3) + generator.normal(0, 0.1, images) ** 2
        weights = {"c.weight": generator.random((4, 3, 3, 3)), "n.running_mean": np.zeros(4)}
        run.checkpoints.mkdir(exist_ok=True)
        save_file(weights, run.checkpoint(epoch))
        digest = sha256_of(run.checkpoint(epoch))
        kept = np.linspace(0, images - 1, min(overlays, images)).astype(np.int64)
        result = TestResult(
            epoch=epoch,
            weights_sha256=digest,
            fingerprint=fingerprint,
            class_names=names,
            keys=np.array([tar.key_of(number) for number in range(images)]),
            counts=counts,
            loss=loss,
            map_samples=kept,
            maps=tuple(layer_png(maps[number]) for number in kept),
            damages=_damages(masks, maps, len(names), generator),
        )
        write_result(run.test_counts(experiment.test.split, epoch), result)
        test_rows.append(
            {"epoch": epoch, "checkpoint": run.checkpoint(epoch).name}
            | scores(counts, loss, names)
            | {"images": images, "weights_sha256": digest}
        )
        events.write(
            "epoch",
            stage="train",
            epoch=epoch,
            epochs=epochs,
            seconds=2.5,
            images_per_second=40.0 + epoch,
            data_wait_share=0.02,
        )
    write_table(run.metrics, metrics_rows)
    write_table(run.test_table(experiment.test.split), test_rows)
    write_json(
        run.provenance,
        {
            "time": "2025-03-01T10:00:00+00:00",
            "command": f"python jobs/train.py {root}",
            "host": "workstation",
            "python": "3.11.2",
            "packages": {"numpy": "2.1.0", "torch": "2.11.0"},
            "git": {"commit": "0123456789abcdef", "branch": "main", "dirty": True, "patch": "+x"},
        },
    )
    outputs = {
        "pack": {"shards": str(folder)},
        "train": {"epochs": epochs},
        "test": {"split": experiment.test.split, "checkpoints": epochs},
    }
    for stage, output in outputs.items():
        record = StageRecord(
            stage,
            state="done",
            attempts=1,
            host="workstation",
            started="2025-03-01T10:00:00+00:00",
            ended="2025-03-01T10:02:03+00:00",
            exit_status=0,
            output=output,
        )
        write_stage(run, record)
    return run


def _damages(masks, maps, classes, generator):
    reliability = np.zeros((BINS, 3), np.int64)
    middles = (np.arange(BINS) + 0.5) / BINS
    reliability[:, 0] = generator.integers(1, 1000, BINS)
    reliability[:, 1] = reliability[:, 0] * middles**2  # more sure than right
    reliability[:, 2] = reliability[:, 0] * middles * UNIT
    sure = np.where([each.any() for each in maps], 0.5, 0.0)
    return Damages(
        counts=np.stack([count_damages(m, p, classes) for m, p in zip(masks, maps, strict=True)]),
        presence=(sure + generator.random(len(masks)) / 2).astype(np.float32),
        reliability=reliability,
        disagreements=np.concatenate(
            [
                find_disagreements(number, mask, each, np.where(each > 0, 0.95, 0.05))
                for number, (mask, each) in enumerate(zip(masks, maps, strict=True))
            ]
        ),
    )


def _map(mask, quality, seed, finds_nothing):
    return np.zeros_like(mask) if finds_nothing else predicted(mask, quality, seed)


def _epoch_scores(masks, quality, seed, names, generator, finds_nothing):
    maps = [_map(mask, quality, seed * 77 + i, finds_nothing) for i, mask in enumerate(masks)]
    counts = np.stack([_counts(m, p, len(names)) for m, p in zip(masks, maps, strict=True)])
    return scores(counts, generator.random(len(masks)), names)


def _counts(truth, found, classes):
    pairs = truth.astype(np.int64) * classes + found
    return np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes)
