"""What a dry run tells: what would run, what it waits for, and what it takes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median

from cardamage.config.choice import parse_pick
from cardamage.config.dataset import SYNTHETIC, Data
from cardamage.config.experiment import Experiment
from cardamage.data.coco.healthy import SHARES, healthy_files
from cardamage.data.coco.source import ImageSource
from cardamage.errors import UserError, counted
from cardamage.launch.planning.graph import Plan, RunPlan, listed
from cardamage.launch.watching.display import duration
from cardamage.launch.watching.tail import last_events
from cardamage.runs.continued import has_begun
from cardamage.runs.directory import as_tested
from cardamage.runs.paths import SPLITS, RunPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import is_study
from cardamage.search.record import rounds_of

PARAMETERS = {
    "segnet1": 46_820_419,
    "segnet2": 742_659,
    "segnet3": 1_518_147,
    "unet": 7_014_531,
    "unet2": 7_788_675,
    "fcn_resnet50": 32_947_779,
    "deeplabv3_resnet50": 39_634_243,
}
"""Parameters of each network for three classes; more classes add a few hundred."""

_QUICK_BYTES = 64 << 20  # annotation files larger than this together are not read
_BYTES_PER_PIXEL = 0.6  # of a JPEG at quality 95 with its mask


def outline(plan: Plan) -> Iterator[str]:
    """What runs of a submission share and wait for, and what its studies compare."""
    for first, others in plan.packed_together().items():
        names = listed([run.root.name for run in (first, *others)], most=16)
        yield f"one dataset, packed once by {first.root.name}, for {names}"
    for each in plan.plans:
        continued = each.experiment.continue_from
        if continued and "train" in each.stages and not has_begun(each.run):
            which = f"{continued.checkpoint} checkpoint"
            if isinstance(continued.checkpoint, int):
                which = f"checkpoint of epoch {continued.checkpoint}"
            words = f"{each.run.root.name} begins with the {which} of {continued.run}"
            waits = each.run in plan.continues
            yield f"{words}: its train waits for that of {continued.run}" if waits else words
    for study in plan.studies:
        if study.search:
            rounds = rounds_of(study.search.settings)
            told = [f"{counted(each.size, 'trial')} to epoch {each.last_epoch}" for each in rounds]
            yield f"rounds: {', then '.join(told)}; those that are trained to the end are tested"
        epochs = {each.run.root.name: each.experiment.train.epochs for each in study.plans}
        for comparison in study.record.compare:
            picks = []
            for asked in map(parse_pick, comparison.runs):
                pick = asked.within(epochs[asked.run])
                picks.append(str(pick) if pick == asked else f"{pick} in place of {asked}")
            yield f"{comparison.name} compares {', '.join(picks)}"


def describe(
    plan: Plan, of_run: RunPlan, commands: Mapping[str, object], gpus: int
) -> Iterator[str]:
    """What a run on this machine, of so many GPUs, would do; ``commands`` of stages are shown."""
    run, experiment = of_run.run, of_run.experiment
    is_new = not (run.config.is_file() or is_study(run.root))
    yield f"{experiment.name}, on this machine"
    yield f"  run directory: {run.root} ({'new' if is_new else 'resumes'})"
    if len(plan.plans) == 1 and "train" in of_run.stages:  # of a study its outline tells enough
        images = _count_images(experiment.data)
        for line in _forecast(experiment, run, images):
            yield f"  {line}"
        if images and experiment.test.split not in images:
            yield f"  test     on valid, since the dataset has no {experiment.test.split} split"
        for problem in problems(experiment, images, gpus=gpus):
            yield f"would be refused: {problem}"
    for number, stage in enumerate(of_run.stages, start=1):
        needs = plan.needs(of_run, stage)
        words = [name if run == other else f"{name} of {other.root}" for other, name in needs]
        after = f"after {listed(words, most=3)}" if words else "needs nothing"
        yield f"  {number}. {stage} ({after}): {_standing(run, experiment, stage)}"
        if stage in commands:
            yield f"     {commands[stage]}"


def problems(
    experiment: Experiment, images: Mapping[str, int] | None, *, gpus: int
) -> Iterator[str]:
    """What training on this machine would be refused for, as far as it can be told beforehand."""
    train = experiment.train
    if train.mixed_precision == "fp16" and not gpus:
        yield 'train.mixed_precision is "fp16", which needs a GPU; use "bf16" or "no" here'
    if images and train.batch_size > images["train"]:
        yield (
            f"train.batch_size is {train.batch_size}, but the train split has {images['train']} "
            f"images; set train.batch_size to {images['train']} or less"
        )


def _standing(run: RunPaths, experiment: Experiment, stage: str) -> str:
    """What a stage would find done, were it started now."""
    trained, epochs, split = (
        run.finished_checkpoints(),
        experiment.train.epochs,
        as_tested(run, experiment).test.split,
    )
    match stage:
        case "train" if len(trained) >= epochs:
            return f"done, all {epochs} epochs"
        case "train":
            return f"{len(trained)} of {epochs} epochs are done"
        case "test":
            tested = sum(run.test_counts(split, epoch).is_file() for epoch in trained)
            of = max(len(trained), epochs)
            return f"{tested} of {of} checkpoints are tested on {split}"
        case _:
            is_done = read_stage(run, stage).state == "done"
            return "done before; checked again" if is_done else "not done"


def _count_images(data: Data) -> dict[str, int] | None:
    """Images of each split once the subset is taken; None where that cannot be told quickly."""
    if data.source == SYNTHETIC:
        held_out = max(1, round(data.synthetic.images * 0.15))
        return {"train": data.synthetic.images - 2 * held_out, "valid": held_out, "test": held_out}
    try:
        with closing(ImageSource(Path(data.source), data.annotations)) as source:
            if source.annotation_bytes() > _QUICK_BYTES:
                return None
            splits = [split for split in SPLITS if split in source.splits()]
            images = {s: len(json.loads(source.annotations(s))["images"]) for s in splits}
    except (UserError, ValueError, LookupError, TypeError):  # packing tells what is wrong
        return None
    if data.split:  # as good as the groups of copies allow
        total = sum(images.values())
        images = {s: round(total * x) for s, x in zip(SPLITS, data.split.shares, strict=True)}
    elif data.valid_share:
        valid = round(images["train"] * data.valid_share)
        images = {**images, "train": images["train"] - valid, "valid": valid}
    elif data.folds:
        both = images["train"] + images.get("valid", 0)
        images = {**images, "train": both - both // data.folds.of, "valid": both // data.folds.of}
    if data.healthy:
        added = len(healthy_files(Path(data.healthy)))
        images = {s: number + round(added * SHARES[s]) for s, number in images.items()}
    return {split: max(1, round(number * data.subset)) for split, number in images.items()}


def _forecast(
    experiment: Experiment, run: RunPaths, images: Mapping[str, int] | None
) -> Iterator[str]:
    """Lines on what a run reads, does and writes."""
    data, train, model = experiment.data, experiment.train, experiment.model.name
    height, width = data.image_size
    counted, steps = "not counted yet", ""
    if images:
        counted = ", ".join(f"{split} {number:,}" for split, number in images.items()) + " images"
        per_epoch = images["train"] / train.batch_size
        steps = f" of {per_epoch:,.0f} steps, {round(per_epoch * train.epochs):,} steps in all"
    yield f"dataset  {'drawn' if data.source == SYNTHETIC else data.source}"
    yield f"         {counted}"
    yield f"classes  {listed([*data.class_groups])}; the rest is background"
    yield f"train    {model} at {height} x {width}, {train.epochs} epochs{steps}"
    if model in PARAMETERS:
        checkpoint = 4 * PARAMETERS[model]
        disk = checkpoint * (train.epochs + 6)  # two states of weights and two moments of each
        if images:
            disk += int(sum(images.values()) * height * width * _BYTES_PER_PIXEL)
        yield f"disk     about {_size(disk)}, of which each checkpoint takes {_size(checkpoint)}"
    yield f"time     {_time(experiment, run, images)}"


def _time(experiment: Experiment, run: RunPaths, images: Mapping[str, int] | None) -> str:
    """Training time from the speed of epochs that this run has behind it."""
    speeds = [
        float(event["images_per_second"])
        for event in last_events(run.events)
        if event.get("event") == "epoch" and event.get("images_per_second")
    ]
    left = experiment.train.epochs - len(run.finished_checkpoints())
    if not speeds or not images:
        return "not known before the first epoch"
    seconds = left * images["train"] / median(speeds)
    return f"about {duration(seconds)} of training left, by the epochs that are done"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
