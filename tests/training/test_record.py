import json
from types import SimpleNamespace

import numpy as np

from cardamage.paths import RunPaths
from cardamage.training.record import SampleRecord


def test_a_line_torn_by_a_kill_is_gone_when_the_record_goes_on(tmp_path):
    run = RunPaths(tmp_path)
    reader = SimpleNamespace(keys=np.array(["00000000", "00000001", "00000002"]))
    batch = SimpleNamespace(samples=np.array([2, 0]))
    with SampleRecord(run, reader, 1, enabled=True) as record:
        record.write(7, 4, batch)
    path = run.consumed_samples(1)
    first = {"step": 7, "first": 4, "keys": ["00000002", "00000000"]}
    assert json.loads(path.read_text()) == first
    with path.open("a") as stream:
        stream.write('{"step": 8, "fir')
    with SampleRecord(run, reader, 1, enabled=True) as record:
        record.write(8, 0, batch)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [first, {**first, "step": 8, "first": 0}]
