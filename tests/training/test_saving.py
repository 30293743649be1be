import pytest
import torch

from cardamage.training.saving import Snapshot

CPU = torch.device("cpu")


def test_a_copy_stays_as_it_was_when_what_was_copied_changes():
    weights = {"a": torch.zeros(3), "b": [torch.ones(2, dtype=torch.int64), "text", 2.5]}
    copy = Snapshot(CPU).take(weights)
    weights["a"] += 1
    weights["b"][0] += 1
    assert copy["a"].tolist() == [0, 0, 0]
    assert copy["b"][0].tolist() == [1, 1]
    assert copy["b"][0].dtype == torch.int64
    assert copy["b"][1:] == ["text", 2.5]


def test_parameters_are_copied_without_their_gradients():
    copy = Snapshot(CPU).take({"w": torch.nn.Parameter(torch.ones(2))})
    assert not copy["w"].requires_grad


def test_memory_is_used_again_and_grows_with_what_is_new():
    snapshot, tensor = Snapshot(CPU), torch.arange(4.0)
    first = snapshot.take({"a": tensor})
    again = snapshot.take({"a": tensor + 1, "late": torch.ones(2)})
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert again["a"].tolist() == [1, 2, 3, 4]
    assert again["late"].tolist() == [1, 1]
    larger = snapshot.take({"a": torch.ones(5)})
    assert larger["a"].tolist() == [1] * 5


def test_strided_tensors_keep_their_values():
    tensor = torch.arange(6.0).view(2, 3).t()
    assert torch.equal(Snapshot(CPU).take([tensor])[0], tensor)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_copy_from_a_gpu_is_that_of_the_moment_it_was_asked_for():
    snapshot, tensor = Snapshot(torch.device("cuda")), torch.zeros(1 << 24, device="cuda")
    copy = snapshot.take({"a": tensor})
    tensor += 1
    snapshot.wait()
    assert copy["a"].is_pinned()
    assert not copy["a"].any()
