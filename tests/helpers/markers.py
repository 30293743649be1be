"""Stage markers as a stage in any state leaves them."""

from dataclasses import asdict

from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord
from cardamage.system.files import write_json


def write_stage(run: RunPaths, record: StageRecord) -> None:
    write_json(run.stage(record.stage), asdict(record))
