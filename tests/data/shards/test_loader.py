"""The loader: the same batches whatever the threads, only so much ahead, and a clean end."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cardamage.data.shards.loader import BATCHES_AHEAD, load
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import DataError
from tests.helpers.small_export import packed_export

WORKERS = [0, 1, 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_export(tmp_path_factory.mktemp("loader"))


@pytest.fixture
def reader(folder: Path) -> Iterator[ShardReader]:
    with ShardReader(folder, "train") as opened:
        yield opened


def request(*samples: int, epoch: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    epochs = None if epoch is None else np.full(len(samples), epoch)
    return np.array(samples), epochs


def decoding_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.mark.parametrize("workers", WORKERS)
def test_batches_are_the_samples_asked_for(reader: ShardReader, workers: int) -> None:
    asked = [(3, 0), (6,), (1, 1, 5)]
    batches = list(load(reader, [request(*samples) for samples in asked], workers=workers))
    assert [tuple(batch.samples.tolist()) for batch in batches] == asked
    for batch, samples in zip(batches, asked, strict=True):
        assert batch.images.dtype == batch.masks.dtype == torch.uint8
        assert batch.images.shape == (len(samples), 3, 16, 24)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.masks.shape == (len(samples), 16, 24)
        for slot, number in enumerate(samples):
            sample = reader.read(number)
            image = batch.images[slot].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(image, sample.image)
            np.testing.assert_array_equal(batch.masks[slot].numpy(), sample.mask)
    assert decoding_threads() == []


def test_batches_carry_the_epochs_asked_for(reader: ShardReader) -> None:
    plain, batch = load(reader, [request(2), request(2, 5, epoch=3)], workers=1)
    assert plain.epochs is None
    assert batch.epochs is not None
    assert batch.epochs.tolist() == [3, 3]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_endless_requests_are_drawn_a_little_ahead(
    reader: ShardReader, workers: int, batch_size: int
) -> None:
    drawn = []

    def asked() -> Iterator[tuple[np.ndarray, None]]:
        for number in itertools.count():
            drawn.append(number)
            yield np.full(batch_size, number % 7), None

    batches = load(reader, asked(), workers=workers)
    assert drawn == []
    most_ahead = max(BATCHES_AHEAD, -(-2 * workers // batch_size))
    for taken in range(1, 20):
        next(batches)
        assert BATCHES_AHEAD <= len(drawn) - taken <= most_ahead
    batches.close()
    assert decoding_threads() == []


def test_in_step_nothing_is_drawn_ahead(reader: ShardReader) -> None:
    asked = iter([request(0), request(1), request(2)])
    batches = load(reader, asked, workers=0)
    next(batches)
    assert [samples.tolist() for samples, _ in asked] == [[1], [2]]


@pytest.mark.parametrize("workers", WORKERS)
def test_no_requests(reader: ShardReader, workers: int) -> None:
    assert list(load(reader, [], workers=workers)) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_reaches_the_consumer_in_its_turn(reader: ShardReader, workers: int) -> None:
    batches = load(reader, [request(1), request(2), request(3, 7), request(4)], workers=workers)
    assert [next(batches).samples.tolist() for _ in range(2)] == [[1], [2]]
    with pytest.raises(IndexError, match="sample 7 of 7"):
        next(batches)
    assert decoding_threads() == []


@pytest.mark.parametrize("workers", WORKERS)
def test_a_damaged_sample_reaches_the_consumer(tmp_path: Path, workers: int) -> None:
    folder = packed_export(tmp_path)
    path = folder / "train" / "000000.tar"
    index = np.load(folder / "train" / "index.npy")
    content = bytearray(path.read_bytes())
    content[int(index[2]["image_offset"]) + 100] ^= 1
    path.write_bytes(content)
    with ShardReader(folder, "train") as reader, pytest.raises(DataError, match="sample 00000002"):
        list(load(reader, [request(0, 1), request(2, 3)], workers=workers))
    assert decoding_threads() == []


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_in_the_requests_reaches_the_consumer(reader: ShardReader, workers: int) -> None:
    def asked():
        yield request(0)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        list(load(reader, asked(), workers=workers))
    assert decoding_threads() == []


def test_several_threads_share_one_batch(reader: ShardReader) -> None:
    class Meeting(ShardReader):
        """Each read waits until four threads read."""

        barrier = threading.Barrier(4, timeout=120)

        def read(self, number):
            self.barrier.wait()
            return super().read(number)

    with Meeting(reader.folder, "train") as meeting:
        (batch,) = load(meeting, [request(0, 1, 2, 3)], workers=4)
    assert batch.samples.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_loader_never_started_holds_nothing(reader: ShardReader, workers: int) -> None:
    batches = load(reader, [request(0)], workers=workers)
    batches.close()
    assert decoding_threads() == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("workers", WORKERS)
def test_pinned_batches(reader: ShardReader, workers: int) -> None:
    (batch,) = load(reader, [request(0, 1)], workers=workers, pin_memory=True)
    assert batch.images.is_pinned()
    assert batch.masks.is_pinned()
