"""Every network of the study and two of segmentation-models-pytorch, exported and compared.

    python benchmarks/exporting.py                     to ONNX, run by ONNX Runtime
    python benchmarks/exporting.py --to torch.export --networks unet2 segnet2

Weights are random, images drawn. Times are of one forward pass on the CPU, the best of REPEATS,
PyTorch and the exported network in turn.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from pydantic import TypeAdapter

from cardamage.config.recipe import Model
from cardamage.data.curation.synthetic import synthesize
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import CardamageError
from cardamage.export.check import batches_of, compare
from cardamage.export.formats import FORMATS, runner, write
from cardamage.export.graph import Exported
from cardamage.models import build_model
from cardamage.predict.model import TrainedModel
from cardamage.training.checkpoint import CheckpointInfo

STUDY = ("segnet1", "segnet2", "segnet3", "unet", "unet2", "fcn_resnet50", "deeplabv3_resnet50")
NETWORKS = {
    **{name: {"name": name} for name in STUDY},
    "smp unet, tu-tf_efficientnet_lite0": {"name": "smp", "weights": "none"},
    "smp fpn, resnet18": {
        "name": "smp",
        "architecture": "fpn",
        "encoder": "resnet18",
        "weights": "none",
    },
}


def main() -> None:
    """Export, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", choices=FORMATS, default="onnx", help="default: %(default)s")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--image-px", type=int, default=96, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=8, help="compared; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    print(describe("torch", *(("onnx", "onnxruntime") if arguments.to == "onnx" else ())))
    print(f"{arguments.images} images of {arguments.image_px} pixels, to {arguments.to}")
    print("| network | sizes | difference | IoU here | exported | PyTorch ms | exported ms | MB |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        drawn, size = Path(folder) / "drawn", (arguments.image_px, arguments.image_px)
        synthesize(drawn, images=2 * arguments.images, size=arguments.image_px, seed=0)
        classes = {name: [name] for name in ("scratch", "dent", "broken lamp")}
        shards = pack(drawn, classes=classes, image_size=size, shards_dir=Path(folder) / "shards")
        with ShardReader(shards, "train") as reader:
            for name in arguments.networks:
                print(row(name, reader, arguments), flush=True)


def row(name: str, reader: ShardReader, arguments: argparse.Namespace) -> str:
    """A network's line of the table."""
    model = trained(NETWORKS[name], reader)
    graph = Exported(model)
    try:
        content, multiple = write(graph, model.info, arguments.to)
    except CardamageError as error:
        return f"| {name} | {error} |"
    run = runner(content, arguments.to)
    batches = list(batches_of(reader, None, most=arguments.images, size=arguments.batch_size))
    found = compare(graph, run, batches, model.class_names)
    pixels = batches[0][0]
    tensor = torch.from_numpy(pixels)
    with torch.no_grad():
        here, there = best_ms(arguments.repeats, lambda: graph(tensor), lambda: run(pixels))
    sizes = {0: "fixed", 1: "any"}.get(multiple, f"multiples of {multiple}")
    before, after = found.scores["iou_fg"]
    return (
        f"| {name} | {sizes} | {found.difference:.1e} | {before:.4f} | {after:.4f} | "
        f"{here:.0f} | {there:.0f} | {len(content) / 1e6:.1f} |"
    )


def trained(section: dict[str, str], reader: ShardReader) -> TrainedModel:
    """A network with random weights, as if it had been trained on a dataset."""
    torch.manual_seed(0)
    model = TypeAdapter(Model).validate_python(section)
    network = build_model(model, len(reader.class_names))
    info = CheckpointInfo(
        epoch=1,
        model=model.model_dump(mode="json"),
        class_names=reader.class_names,
        image_size=reader.image_size,
        config_hash="",
    )
    return TrainedModel(info, network)


def best_ms(repeats: int, *actions: Callable[[], object]) -> list[float]:
    """The shortest time of each action in ms; they take turns, so that they share the weather."""
    best = [float("inf")] * len(actions)
    for _ in range(repeats):
        for number, action in enumerate(actions):
            started = time.perf_counter()
            action()
            best[number] = min(best[number], 1000 * (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    main()
