"""The seven networks in plain NumPy, float64, written from the study's table and not from our code.

They read a state dict's tensors in the order in which they lie there, so a layer that is missing,
of another size or in another place is found out. Batch normalisation is that of evaluation.
"""

from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray


class Layers:
    """Gives out the layers of a state dict one after another."""

    def __init__(self, state: Mapping[str, Array]) -> None:
        self.left: list[dict[str, Array]] = []
        stem = None
        for key, value in state.items():
            of, _, part = key.rpartition(".")
            if of != stem:
                self.left.append({})
            stem = of
            self.left[-1][part] = np.asarray(value, dtype=np.float64)

    def conv(self, x: Array, *, stride: int = 1, dilation: int = 1) -> Array:
        """The next convolution, padded to keep the size; x is (B, C, H, W)."""
        layer = self.left.pop(0)
        weight = layer["weight"]  # (out, in, kernel, kernel)
        kernel = weight.shape[-1]
        pad = dilation * (kernel // 2)
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        height, width = x.shape[2:]
        out = 0.0
        for row in range(kernel):
            for column in range(kernel):
                top, left = row * dilation, column * dilation
                seen = padded[:, :, top : top + height : stride, left : left + width : stride]
                out = out + np.einsum(
                    "oi,bihw->bohw", weight[:, :, row, column], seen, optimize=True
                )
        bias = layer.get("bias")
        return out if bias is None else out + bias[:, None, None]

    def norm(self, x: Array) -> Array:
        """The next batch normalisation."""
        layer = {key: value[..., None, None] for key, value in self.left.pop(0).items()}
        centred = (x - layer["running_mean"]) / np.sqrt(layer["running_var"] + 1e-5)
        return centred * layer["weight"] + layer["bias"]

    def block(self, x: Array, **options: int) -> Array:
        """The next convolution, its batch normalisation, ReLU."""
        return np.maximum(self.norm(self.conv(x, **options)), 0)


def resized(x: Array, size: tuple[int, int], *, align_corners: bool) -> Array:
    """Bilinear interpolation."""
    for axis, out in ((2, size[0]), (3, size[1])):
        into = x.shape[axis]
        if align_corners:
            at = np.arange(out) * (into - 1) / max(out - 1, 1)
        else:
            at = np.clip((np.arange(out) + 0.5) * into / out - 0.5, 0, into - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, into - 1)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def doubled(x: Array) -> Array:
    return resized(x, (2 * x.shape[2], 2 * x.shape[3]), align_corners=True)


def pooled(x: Array) -> Array:
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))


def segnet(layers: Layers, x: Array, down: tuple[int, ...], up: tuple[int, ...]) -> Array:
    """A SegNet by the number of convolutions of each of its stages."""
    for convolutions in down:
        for _ in range(convolutions):
            x = layers.block(x)
        x = pooled(x)
    for stage, convolutions in enumerate(up, start=1):
        x = doubled(x)
        for number in range(1, convolutions + 1):
            is_last = stage == len(up) and number == convolutions
            x = layers.conv(x) if is_last else layers.block(x)
    return x


def unet(layers: Layers, x: Array, *, skips: bool) -> Array:
    encoded = []
    for _ in range(3):
        x = pooled(layers.block(layers.block(x)))
        encoded.append(x)
    x = layers.block(layers.block(x))
    for skipped in reversed(encoded):
        entering = np.concatenate([x, skipped], axis=1) if skips else x
        x = doubled(layers.block(layers.block(entering)))
    return layers.conv(x)


def resnet50(layers: Layers, x: Array) -> Array:
    """The backbone, its last two stages dilated where they would shrink: 1/8 of the size."""
    x = layers.block(x, stride=2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    height, width = x.shape[2:]
    x = np.max(
        [padded[:, :, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)],
        axis=0,
    )
    for blocks, stride, first, others in ((3, 1, 1, 1), (4, 2, 1, 1), (6, 1, 1, 2), (3, 1, 2, 4)):
        for number in range(blocks):
            dilation, by = (others, 1) if number else (first, stride)
            y = layers.block(x)
            y = layers.block(y, stride=by, dilation=dilation)
            y = layers.norm(layers.conv(y))
            shortcut = x if number else layers.norm(layers.conv(x, stride=by))
            x = np.maximum(y + shortcut, 0)
    return x


def fcn_resnet50(layers: Layers, x: Array) -> Array:
    size = x.shape[2:]
    x = layers.conv(layers.block(resnet50(layers, x)))
    return resized(x, size, align_corners=False)


def deeplabv3_resnet50(layers: Layers, x: Array) -> Array:
    size = x.shape[2:]
    x = resnet50(layers, x)
    branches = [layers.block(x), *(layers.block(x, dilation=rate) for rate in (12, 24, 36))]
    whole = layers.block(x.mean(axis=(2, 3), keepdims=True))
    branches.append(np.broadcast_to(whole, (*whole.shape[:2], *x.shape[2:])))
    x = layers.block(np.concatenate(branches, axis=1))
    x = layers.conv(layers.block(x))
    return resized(x, size, align_corners=False)


NETWORKS: dict[str, Callable[[Layers, Array], Array]] = {
    "segnet1": lambda layers, x: segnet(layers, x, (2, 3, 3), (3, 3, 2)),
    "segnet2": lambda layers, x: segnet(layers, x, (1, 1, 1), (1, 1, 1)),
    "segnet3": lambda layers, x: segnet(layers, x, (2, 2, 2), (1, 1, 1)),
    "unet": lambda layers, x: unet(layers, x, skips=False),
    "unet2": lambda layers, x: unet(layers, x, skips=True),
    "fcn_resnet50": fcn_resnet50,
    "deeplabv3_resnet50": deeplabv3_resnet50,
}


def forward(name: str, state: Mapping[str, Array], images: Array) -> Array:
    """The logits (B, classes, H, W) of a network; every tensor of the state has to be used."""
    layers = Layers(state)
    logits = NETWORKS[name](layers, np.asarray(images, dtype=np.float64))
    assert not layers.left, f"{len(layers.left)} layers are left over"
    return logits
