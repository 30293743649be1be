"""What profiles of SLURM clusters refuse."""

from pathlib import Path

import pytest

from cardamage.errors import ConfigError
from cardamage.launch.planning.profiles import (
    COLLECTIVES_END_AFTER_MINUTES,
    SlurmProfile,
    SlurmStage,
    load_profile,
)
from cardamage.training import distributed


def test_the_watchdog_has_to_be_quicker_than_the_collectives(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text("backend: slurm\nwatchdog_minutes: 30\n")
    with pytest.raises(ConfigError, match=r"watchdog_minutes: 30 is too long: .*; give less than"):
        load_profile(str(path))
    for minutes in (0, 29.9):
        path.write_text(f"backend: slurm\nwatchdog_minutes: {minutes}\n")
        loaded = load_profile(str(path))
        assert isinstance(loaded, SlurmProfile)
        assert loaded.watchdog_minutes == minutes


def test_packing_is_done_once_and_not_side_by_side(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text("backend: slurm\npack: {side_by_side: 2}\n")
    with pytest.raises(ConfigError, match=r"pack: side_by_side is 2.*; set it in train, test or"):
        load_profile(str(path))
    path.write_text("backend: slurm\nall_stages: {side_by_side: 2}\n")
    loaded = load_profile(str(path))
    assert isinstance(loaded, SlurmProfile)
    assert (loaded.pack.side_by_side, loaded.train.side_by_side) == (1, 2)


@pytest.mark.parametrize(
    ("asked", "gpus"),
    [
        ({}, 0),
        ({"gpus_per_node": 2}, 2),
        ({"gpus_per_node": "a100:4"}, 4),
        ({"extra": {"gres": "gpu:a100:2"}}, 2),
        ({"extra": {"gres": "scratch:50,gpu"}}, 1),
        ({"extra": {"gres": "scratch:50"}}, 0),
        ({"nodes": 2, "extra": {"gpus": "h100:8"}}, 4),
    ],
)
def test_gpus_are_counted_however_they_are_asked_for(asked: dict[str, object], gpus: int):
    stage = SlurmStage.model_validate(asked)
    assert (stage.gpus, stage.tasks) == (gpus, max(1, gpus))


def test_the_limit_is_the_one_that_training_sets():
    assert distributed.COLLECTIVE_S == COLLECTIVES_END_AFTER_MINUTES * 60


def test_a_wrong_key_for_all_stages_is_named_where_it_stands(tmp_path: Path):
    (tmp_path / "site.yaml").write_text("backend: slurm\nall_stages: {memory: 2}\n")
    with pytest.raises(ConfigError) as error:
        load_profile(str(tmp_path / "site.yaml"))
    assert "all_stages.memory: unknown key" in str(error.value)
    assert "mem_gb" in str(error.value)
    assert "more)" not in str(error.value)
