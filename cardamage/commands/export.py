"""Export a model for other software.

The file holds normalisation, network, class names and image size, and is written once it gave the
same answers as the network on the test images: see docs/export.md.
"""

import argparse
import math
from pathlib import Path

from cardamage.commands.arguments import add_checkpoint, add_runs_dir
from cardamage.errors import ConfigError

_FORMATS = ("onnx", "torch.export", "torchscript")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run, by name or path, or a checkpoint file")
    parser.add_argument("--to", choices=_FORMATS, default="onnx", help="default: %(default)s")
    add_checkpoint(parser)
    parser.add_argument("--half", action="store_true", help="compute in float16, half as large")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: RUN/export/epoch-<N>.<ending>"
    )
    parser.add_argument(
        "--check", type=int, metavar="N", help="check it on N test images; default: on all"
    )
    add_runs_dir(parser)


def run(arguments: argparse.Namespace) -> None:
    from cardamage.export.export import export
    from cardamage.predict.chosen import choose_model

    if arguments.check is not None and arguments.check < 1:
        raise ConfigError(f"--check {arguments.check}: one image at least; leave it out for all")
    chosen = choose_model(arguments.run, arguments.checkpoint, arguments.runs_dir, device="cpu")
    path, multiple, split, found = export(
        chosen, arguments.to, out=arguments.out, half=arguments.half, most=arguments.check
    )
    print(path)
    height, width = chosen.model.info.tile or chosen.model.info.image_size
    size = f"{height} x {width} pixels"
    sides = "any size" if multiple == 1 else f"sides that are multiples of {multiple}"
    print(f"any number of images, of {sides if multiple else f'{size} only'}; trained at {size}")
    where = f"{found.images} images of {split}" if split else f"{found.images} images of noise"
    print(
        f"on {where}: probabilities differ by {found.difference:.2g} at most, the likeliest class "
        f"in {100 * found.other_classes:.3g} % of the pixels"
    )
    if found.scores:
        print(f"{'':<10} {'network':>8} {'exported':>8}")
    for name, values in found.scores.items():
        print(f"{name:<10} " + " ".join("" if math.isnan(v) else f"{v:8.4f}" for v in values))
