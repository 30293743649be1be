"""The rounds of a search as jobs, all of which are queued at once.

How many trials each round has is known, which they are is not. So the jobs of a later round work
for slots: links that a small job before them, once the round before is over, sets to the runs of
the trials it chooses. Nothing is submitted from a node, and the machine that submitted may be off.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cardamage.errors import RunError
from cardamage.launch.planning.graph import RunPlan, StudyPlan
from cardamage.launch.slurm.batch_job import BatchJob, Need, Work
from cardamage.launch.watching.client import submit_script
from cardamage.launch.watching.record import LaunchRecord, read_launch
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import copy_to, now, read_stage, running, wait
from cardamage.runs.study import StudyRecord, open_study, read_study
from cardamage.search.decide import decided, open_search
from cardamage.search.record import Round, read_search, rounds_of, trial_name, trial_run
from cardamage.system.console import log
from cardamage.system.files import write_json

_SHARED = "report"
"""The stage that the other jobs of a search share the work of, by their names."""

DECIDES = f"{_SHARED}.decide"
"""Before its number: what the stage is called that decides a round."""


def later_rounds(
    study: StudyPlan,
    jobs: Sequence[BatchJob],
    code: Path,
    of_slots: Callable[..., Iterator[BatchJob]],
) -> Iterator[BatchJob]:
    """The jobs of the rounds of a search that are not decided yet.

    Args:
        jobs: those of its present round, among others.
        of_slots: makes the jobs of a round.
    """
    if study.search is None:
        return
    folder, name = study.study, study.record.name
    members = {folder.root.parent / plan.run.root.name for plan in study.plans}
    before = [
        job.label
        for job in jobs
        if job.stage == "train" and any(work.run in members for work in job.works)
    ]
    for each in rounds_of(study.search.settings)[len(study.search.rounds) :]:
        label = f"decide{each.number}-{name}"
        work = Work(folder.root, _decision(each.number), ("decide", str(each.number)))
        needs = tuple(Need("afterany", upstream) for upstream in before)
        yield BatchJob(f"{name}-decide", _SHARED, (work,), code, folder.slurm, label, needs)
        stages = _stages(each)
        slots = [
            RunPlan(study.plans[0].experiment, RunPaths(folder.slot(each.number, place)), stages)
            for place in range(each.size)
        ]
        made = of_slots(
            slots,
            (name, folder.slurm),
            code=code,
            suffix=f"-round{each.number}-{name}",
            before=(Need("afterok", label),),
        )
        before = []
        for job in made:
            works = tuple(replace(work, is_slot=True) for work in job.works)
            yield replace(job, works=works)
            if job.stage == "train":
                before.append(job.label)


def slot_jobs(jobs: Sequence[BatchJob], ids: Mapping[str, str]) -> dict[Path, dict[str, str]]:
    """For each search the job of each slot, named as ``launch.json`` has them.

    As in ``report.train3.0``: that of the first slot of the third round.
    """
    found: dict[Path, dict[str, str]] = {}
    for job in (job for job in jobs if job.works[0].is_slot):
        for index, slot in enumerate(work.run for work in job.works):
            name = _slot_job(job.stage, int(slot.parent.name), slot.name)
            element = f"_{index % job.elements}" if job.is_array else ""
            found.setdefault(slot.parents[2], {})[name] = f"{ids[job.label]}{element}"
    return found


def round_again(study: StudyPaths, number: int) -> dict[str, list[str]]:
    """Decide a round whose own job for it died, and submit its jobs again, by stage.

    SLURM took them out of the queue when that job ended.

    Raises:
        UserError: SLURM refuses.
    """
    launch, record = read_launch(study), read_search(study)
    if launch is None or record is None:
        return {}
    decide(study, number)  # first: the jobs print through the slots
    made: dict[str, list[str]] = {}
    for stage in _stages(rounds_of(record.settings)[number - 1]):
        prefix = _slot_job(stage, number, "")
        slots = {
            name.removeprefix(prefix): job
            for name, job in launch.jobs.items()
            if name.startswith(prefix)
        }
        arrays = [*dict.fromkeys(job.partition("_")[0] for job in slots.values())]
        before, made[stage] = [*made.values()][-1:], []
        for part, array in enumerate(arrays):
            kind = "aftercorr" if f"{array}_0" in slots.values() else "afterok"
            needs = f"{kind}:{before[0][part]}" if before else ""
            script = _script(study, stage, number, arrays, array)
            made[stage].append(submit_script(script, needs, launch.comment))
        for slot, old in slots.items():
            array, cut, element = old.partition("_")
            line = f"{old} {made[stage][arrays.index(array)]}{cut}{element}\n"
            for run in (study, RunPaths(study.slot(number, int(slot)))):
                with run.resubmitted.open("a", encoding="utf-8") as noted:
                    noted.write(line)
    return made


def _script(study: StudyPaths, stage: str, number: int, arrays: Sequence[str], array: str) -> Path:
    part = f"-part{arrays.index(array)}" if len(arrays) > 1 else ""
    return study.slurm / f"{stage}-round{number}-{read_study(study).name}{part}.sbatch"


def decide(study: StudyPaths, number: int) -> None:
    """Choose the trials of a round of a search, and lead the jobs that wait for them there.

    Done again it does the same. A trial of the round before that is not trained has failed.

    Raises:
        RunError: the folder is that of no search, a round before it was not decided, or no trial
            came to the rung.
    """
    with running(study, _decision(number)):
        record = read_search(study)
        if record is None:
            raise RunError(f"{study.root} is no search: it has no {study.search.name}")
        if len(record.rounds) < number - 1:
            raise RunError(
                f"{study.root}: round {number - 1} was not decided; submit the search again"
            )
        if len(record.rounds) == number - 1:
            record = decided(study, record)
        open_search(study, record)
        runs = [trial_run(study, trial) for trial in range(len(record.values))]
        packed = next(run for run in runs if read_stage(run, "pack").state == "done")
        for trial in record.rounds[number - 1]:
            run = runs[trial]
            open_run(run, record.settings.experiment(run.root.name, record.values[trial]))
            if read_stage(run, "pack").state != "done":
                copy_to([run], packed, "pack")
        names = tuple(trial_name(study, trial) for trial in range(len(runs)))
        known = read_study(study)
        open_study(study, StudyRecord(known.name, known.source, names))
        _fill_slots(study, rounds_of(record.settings)[number - 1], record.rounds[number - 1])
        log.info("round %d: %s", number, ", ".join(names[t] for t in record.rounds[number - 1]))


def _fill_slots(study: StudyPaths, each: Round, trials: Sequence[int]) -> None:
    idle = RunPaths(study.slot(each.number, 0).parents[1] / "idle")
    idle.logs.mkdir(parents=True, exist_ok=True)
    launch = read_launch(study)
    for place in range(each.size):
        run = trial_run(study, trials[place]) if place < len(trials) else idle
        slot = study.slot(each.number, place)
        slot.parent.mkdir(parents=True, exist_ok=True)
        slot.unlink(missing_ok=True)
        slot.symlink_to(run.root.resolve())
        if run is not idle:
            for stage in _stages(each):
                run.starts(stage).unlink(missing_ok=True)
                if run.stage(stage).is_file():
                    wait(run, stage)
            if launch:
                _note_launch(study, run, launch, each, place)


def _note_launch(
    study: StudyPaths, run: RunPaths, launch: LaunchRecord, each: Round, place: int
) -> None:
    """Note in a trial's folder which jobs work for it from now on."""
    jobs: dict[str, str] = {}
    commands: dict[str, list[str]] = {}
    in_turn = []
    for stage in _stages(each):
        names = [_slot_job(stage, each.number, str(slot)) for slot in range(each.size)]
        slots = [launch.jobs.get(name, "") for name in names]
        if job := slots[place]:
            jobs[stage] = job
            arrays = [*dict.fromkeys(slot.partition("_")[0] for slot in slots)]
            script = _script(study, stage, each.number, arrays, job.partition("_")[0])
            commands[stage] = ["sbatch", str(script)]
            in_turn += [stage] * (slots.count(job) > 1)
    if jobs:
        noted = replace(launch, stages=commands, jobs=jobs, in_turn=in_turn, ended=now())
        write_json(run.launch, noted.__dict__)


def is_slot_job(name: str) -> bool:
    """Whether ``launch.json`` has a job under this name for a slot of a search."""
    return name.startswith(f"{_SHARED}.") and name.count(".") == 2


def _slot_job(stage: str, number: int, slot: str) -> str:
    return f"{_SHARED}.{stage}{number}.{slot}"


def _stages(each: Round) -> tuple[str, ...]:
    return STAGES[1:] if each.is_final else ("train",)


def _decision(number: int) -> str:
    return f"{DECIDES}{number}"
