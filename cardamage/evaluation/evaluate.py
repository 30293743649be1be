"""The one evaluation, used after every epoch and by the test stage, on any number of processes.

Per-image rows are summed nowhere: they are gathered, put in the order of the split, and handed to
:mod:`~cardamage.evaluation.metrics`. Batches are cut from the split before they are dealt to
processes, so the same images meet in one forward pass on any number of them and the counts are
equal to the last bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn

from cardamage.data.drawing import layer_png
from cardamage.data.shards.loader import Request, load
from cardamage.data.shards.order import shares
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import CardamageError
from cardamage.evaluation.confusion import (
    Tally,
    foreground_confidence,
    foreground_probability,
)
from cardamage.evaluation.damages import BINS, Damages, count_damages
from cardamage.evaluation.disagreements import find_disagreements
from cardamage.evaluation.inference import Size, infer
from cardamage.models.inputs import normalise


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a split of N images.

    Attributes:
        counts: int64 (N, C, C): true class by predicted class, per image.
        loss: float64 (N,): each image's loss.
        maps: K PNG files: predicted class ids of the samples asked for.
        damages: None unless asked for.
    """

    counts: NDArray[np.int64]
    loss: NDArray[np.float64]
    maps: tuple[bytes, ...]
    damages: Damages | None


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    reader: ShardReader,
    accelerator: Accelerator,
    *,
    batch_size: int,
    workers: int,
    flip: bool = False,
    tile: Size | None = None,
    map_samples: Sequence[int] = (),
    damages: bool = False,
    after_batch: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Evaluate every sample of a split exactly once, over all processes together.

    Args:
        model: on the accelerator's device; left in the mode it came in. Running statistics are
            taken from process 0 first, since those are what a checkpoint saves.
        flip: look at each image mirrored as well.
        tile: look at tiles of this height and width.
        map_samples: sample numbers whose predicted maps are returned.
        damages: count damages as well, which takes some milliseconds an image.
        after_batch: called after every batch, equally often on every process.

    Raises:
        CardamageError: a sample was missed or seen twice; a defect, never expected.
        DataError: a shard is damaged.
    """
    share_running_statistics(model, accelerator)
    was_training = model.training
    model.eval()
    tally = Tally(len(reader.class_names))
    wanted = set(map_samples)
    maps: list[tuple[int, bytes]] = []
    found: list[tuple[int, NDArray[np.int32], float, NDArray[np.float32]]] = []
    reliability = torch.zeros(BINS, 3, dtype=torch.int64, device=accelerator.device)
    dealt = shares(-(-len(reader) // batch_size), accelerator.num_processes)
    mine = dealt[accelerator.process_index]
    requests = _requests(mine, len(reader), batch_size)
    pin_memory = accelerator.device.type == "cuda"
    with closing(load(reader, requests, workers=workers, pin_memory=pin_memory)) as batches:
        for batch in batches:
            images = batch.images.to(accelerator.device, non_blocking=True)
            target = batch.masks.to(accelerator.device, non_blocking=True)
            with accelerator.autocast():
                logits = infer(model, normalise(images), flip=flip, tile=tile)
            predicted = logits.argmax(dim=1)
            tally.add(torch.from_numpy(batch.samples), predicted, target, loss(logits, target))
            if damages or not wanted.isdisjoint(batch.samples.tolist()):
                ids = predicted.to(torch.uint8).cpu().numpy()
                for sample, each in zip(batch.samples.tolist(), ids, strict=True):
                    if sample in wanted:
                        maps.append((sample, layer_png(each)))
            if damages:
                foreground = foreground_probability(logits)
                presence, bins = foreground_confidence(foreground, target)
                reliability += bins
                shown = foreground.cpu().numpy(), presence.tolist()
                found += [
                    (
                        number,
                        count_damages(truth, each, len(reader.class_names)),
                        sure,
                        find_disagreements(number, truth, each, share),
                    )
                    for number, truth, each, share, sure in zip(
                        batch.samples.tolist(), batch.masks.numpy(), ids, *shown, strict=True
                    )
                ]
            after_batch()
    for _ in range(mine.stop - mine.start, max(share.stop - share.start for share in dealt)):
        after_batch()
    model.train(was_training)
    tallied = tally.gather(accelerator)
    if tallied["positions"].tolist() != list(range(len(reader))):
        raise CardamageError(
            f"evaluation saw {len(tallied['positions'])} samples of {len(reader)}, "
            f"or some of them twice; please report this defect"
        )
    if accelerator.num_processes > 1:
        maps, found = gather_object(maps), gather_object(found)
    kept = dict(maps)
    counted = None
    if damages:
        found.sort(key=lambda row: row[0])
        counted = Damages(
            counts=np.stack([counts for _, counts, _, _ in found]),
            presence=np.array([sure for _, _, sure, _ in found], np.float32),
            reliability=accelerator.reduce(reliability).cpu().numpy(),
            disagreements=np.concatenate([rows for *_, rows in found]),
        )
    return Evaluation(
        counts=tallied["counts"].numpy(),
        loss=tallied["loss"].numpy(),
        maps=tuple(kept[sample] for sample in map_samples),
        damages=counted,
    )


def share_running_statistics(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the buffers of process 0, such as BatchNorm's running statistics."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _requests(batches: slice, samples: int, batch_size: int) -> Iterator[Request]:
    """Some of the batches that a split of ``samples`` in order is cut up into."""
    for batch in range(batches.start, batches.stop):
        first = batch * batch_size
        yield np.arange(first, min(first + batch_size, samples)), None
