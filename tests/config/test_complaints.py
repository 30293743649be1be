"""What a person is told about a config that does not fit the schema."""

from typing import get_args

import pytest

from cardamage.config import loading, recipe
from cardamage.errors import ConfigError

VALUES = {
    "name": "x",
    "data": {"source": "data/cars", "classes": ["scratch", "dent"]},
    "model": {"name": "unet2"},
    "optim": {"name": "adam"},
}


def names(union: object) -> str:
    """The names of the sections of a union, as a complaint lists them."""
    sections = get_args(get_args(union)[0])
    return ", ".join(
        name for section in sections for name in get_args(section.model_fields["name"].annotation)
    )


MODELS, LOSSES = names(recipe.Model), names(recipe.Loss)


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loading.parse(VALUES, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("config: ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # unknown keys and names
        (
            "optims.lr=1",
            (
                'optims: unknown key (did you mean "optim"?); allowed here: '
                "name, seed, data, model, continue_from, loss, optim, schedule, ema, augment, "
                "train, test, track, notify"
            ),
        ),
        (
            "optim.learning_rate=1",
            (
                "optim.learning_rate: unknown key; allowed here: name, lr, betas, weight_decay, "
                "decay_norms, encoder_lr, clip_norm"
            ),
        ),
        (
            "optim.weight_decy=1",
            (
                'optim.weight_decy: unknown key (did you mean "weight_decay"?); '
                "allowed here: name, lr, betas, weight_decay, decay_norms, encoder_lr, clip_norm"
            ),
        ),
        (
            "model.depth=3",
            "model.depth: unknown key; allowed here: name",
        ),
        (
            "model.name=unett2",
            f'model.name: "unett2" is unknown (did you mean "unet2"?); allowed: {MODELS}',
        ),
        ("model.name=3", None),
        (
            "epochs=3",
            (
                'epochs: unknown key (did you mean "train.epochs"?); allowed here: name, seed, '
                "data, model, continue_from, loss, optim, schedule, ema, augment, train, test, "
                "track, notify"
            ),
        ),
        (
            "data.image_size=96",
            (
                "data.image_size: must be a list (Height and width the images are packed at, in "
                "pixels); it is 96; write [96, 96]"
            ),
        ),
        (
            "data.subset=20",
            "data.subset: must be less than or equal to 1; it is 20; for 20 % write 0.2",
        ),
        (
            "loss.name=focsl",
            f'loss.name: "focsl" is unknown (did you mean "focal"?); allowed: {LOSSES}',
        ),
        (
            "train.mixed_precision=fp8",
            (
                'train.mixed_precision: "fp8" is unknown (did you mean "fp16"?); '
                "allowed: no, fp16, bf16, auto"
            ),
        ),
        (
            "test.select_by=dic",
            (
                'test.select_by: "dic" is unknown (did you mean "dice"?); '
                "allowed: loss, dice, iou, accuracy, dice_fg, iou_fg, mdice, miou"
            ),
        ),
        ("test.split=val", None),
        ("data.image_format=gif", None),
        # types
        ("train.epochs=ten", 'train.epochs: must be a valid integer; it is "ten"'),
        ("train.epochs=1.0", "train.epochs: must be a valid integer; it is 1.0"),
        ("train.epochs=true", "train.epochs: must be a valid integer; it is true"),
        ("train.epochs=", "train.epochs: must be a valid integer; it is null"),
        ("seed=3.5", "seed: must be a valid integer; it is 3.5"),
        ("optim.lr=fast", 'optim.lr: must be a valid number; it is "fast"'),
        ("data.source=3", "data.source: must be a valid string; it is 3"),
        ("train=3", "train: must hold keys and values; it is 3"),
        (
            "model=unet2",
            (
                'model: must hold keys and values; it is "unet2"; write model: {name: unet2}, or '
                "model.name=unet2"
            ),
        ),
        ("data.classes=[1]", "data.classes[0]: must be a valid string; it is 1"),
        (
            "data.classes=scratch",
            (
                "data.classes: must be a list (Classes 1, 2, ... in this order: category names, or "
                '{class: [categories]} to group); it is "scratch"; write [scratch]'
            ),
        ),
        ("data.classes={damage: scratch}", None),
        (
            "data.drop=dent",
            (
                "data.drop: must be a list (Categories that are left as background); it is "
                '"dent"; write [dent]'
            ),
        ),
        ("data.image_size=240", None),
        (
            "data.image_size=[240.0, 240]",
            "data.image_size[0]: must be a valid integer; it is 240.0",
        ),
        (
            "data.image_size=[240]",
            (
                "data.image_size: has too few values "
                "(Height and width the images are packed at, in pixels); it is [240]"
            ),
        ),
        (
            "data.image_size=[1, 2, 3]",
            (
                "data.image_size: has too many values "
                "(Height and width the images are packed at, in pixels); it is [1, 2, 3]"
            ),
        ),
        ("train.deterministic=1", None),
        # impossible values
        ("train.epochs=0", "train.epochs: must be greater than or equal to 1; it is 0"),
        ("train.epochs=10000", "train.epochs: must be less than or equal to 9999; it is 10000"),
        ("train.batch_size=0", "train.batch_size: must be greater than or equal to 1; it is 0"),
        ("train.micro_batch_size=0", None),
        ("augment=[{name: horizontal_flip, probability: 1.5}]", None),
        (
            "augment=[{name: affine, scale: [1.2, 0.8]}]",
            "augment[0].scale: the first must not be above the second; it is [1.2, 0.8]",
        ),
        ("augment=[{name: affine, translate: 0.6}]", None),
        ("augment=[{name: random_resized_crop, scale: [0, 1]}]", None),
        ("augment=[{name: blur, sigma: [.nan, 1]}]", None),
        ("augment=[{name: jpeg, quality: [90.5, 95]}]", None),
        ("optim.lr=0", "optim.lr: must be greater than 0; it is 0"),
        ("optim.lr=-1", "optim.lr: must be greater than 0; it is -1"),
        ("optim.lr=.inf", "optim.lr: must be a finite number; it is Infinity"),
        ("optim.lr=.nan", "optim.lr: must be a finite number; it is NaN"),
        ("optim.lr=1e999", "optim.lr: must be a finite number; it is Infinity"),
        ("optim.weight_decay=-1", None),
        ("optim.betas=[0.9, 1.0]", "optim.betas[1]: must be less than 1; it is 1.0"),
        ("optim.betas=['0.9', 0.99]", 'optim.betas[0]: must be a valid number; it is "0.9"'),
        ("seed=-1", "seed: must be greater than or equal to 0; it is -1"),
        ("seed=4294967296", None),
        ("data.subset=0", "data.subset: must be greater than 0; it is 0"),
        ("data.subset=1.5", "data.subset: must be less than or equal to 1; it is 1.5"),
        ("data.workers=-1", None),
        ("data.synthetic.images=7", None),
        ("test.overlays=5001", None),
        ('data.source=""', 'data.source: must have at least 1 character; it is ""'),
        ("data.classes=[]", None),
        (
            "data.image_size=[4, 240]",
            "data.image_size: height and width must lie between 8 and 8192 pixels; it is [4, 240]",
        ),
        (
            "data.image_size=[241, 236]",
            (
                "unet2 halves the image three times, so data.image_size must be multiples of 8, "
                "not [241, 236]; the nearest is [240, 240]"
            ),
        ),
        ("data.classes=[dent, dent]", 'data: classes names "dent" twice; keep one'),
        (
            "data.classes=[background]",
            'data: a class cannot be called "background"; id 0 is the background',
        ),
        ("data.classes={a: []}", 'data: class "a" has no categories; name at least one'),
        (
            "data.classes={a: [dent], b: [dent]}",
            'data: category "dent" is in both "a" and "b"; keep one',
        ),
        (
            "data.classes={a: [dent, dent]}",
            'data: class "a" names category "dent" twice; keep one',
        ),
        (
            "data.drop=[dent]",
            'data: category "dent" is in both "drop" and "dent"; keep one',
        ),
        ("name=a/b", None),
        ("name=..", None),
        ("name=-x", None),
        ("name=a b", None),
        (
            "name=",
            "name: must be a valid string; it is null",
        ),
        # overrides that are none
        ("seed", '"seed" is no override; write key=value, as in optim.lr=3e-4'),
        ("=3", '"=3" is no override; write key=value, as in optim.lr=3e-4'),
        ("optim..lr=3", None),
        ("seed=[1", 'seed: the value "[1" is not YAML; quote it'),
        ("seed={a: 1, a: 2}", 'seed: the value "{a: 1, a: 2}" is not YAML; quote it'),
        ("data.source=&a [*a]", 'data.source: the value "&a [*a]" is not YAML; quote it'),
        ("name.x=3", "name.x: \"name\" is 'x', which holds no keys"),
    ],
)
def test_refused(override: str, message: str | None):
    """Each in one line; where no message stands, the line must name the key."""
    told = refusal(override)
    if message is None:
        key = override.partition("=")[0]
        assert key in told or override in told
    else:
        assert told == message


def test_too_many_classes_for_an_8_bit_mask():
    names = ", ".join(f"c{number}" for number in range(256))
    assert (
        refusal(f"data.classes=[{names}]") == "data: there are 256 classes; at most 255 fit a mask"
    )


def test_several_mistakes_are_counted():
    assert refusal("train.epochs=0", "train.batch_size=0", "seed=-1").endswith("(and 2 more)")


def test_long_value_is_cut():
    told = refusal("name=" + "a" * 5000)
    assert told.startswith("name: must have at most 100 characters")
    assert len(told) < 200
