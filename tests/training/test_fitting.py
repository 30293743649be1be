"""How many images fit, on a network that runs out of memory by itself."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from cardamage.errors import ConfigError
from cardamage.evaluation.confusion import Tally
from cardamage.training.losses import cross_entropy
from cardamage.training.memory import fitting_micro_batch
from cardamage.training.state import Training


class Narrow(nn.Module):
    """Has room for so many images."""

    def __init__(self, room):
        super().__init__()
        self.room, self.layers = room, nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layers(images)


def found(room, share):
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator, network = Accelerator(cpu=True), Narrow(room)
    training = Training(accelerator, network, None, Tally(2), {})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        return fitting_micro_batch(training, share, cross_entropy, (8, 8))
    finally:
        assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("room", "share", "expected"), [(16, 16, 16), (15, 16, 8), (3, 16, 2), (2, 5, 2), (1, 3, 1)]
)
def test_the_share_is_halved_until_it_fits(room, share, expected):
    assert found(room, share) == expected


def test_an_image_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="one image"):
        found(0, 4)
