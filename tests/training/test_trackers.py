"""What trackers are told, and that none of them ends training."""

import numpy as np
import pytest
from accelerate import PartialState
from accelerate.tracking import TensorBoardTracker, WandBTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cardamage.config import loading
from cardamage.config.trackers import require_installed
from cardamage.errors import ConfigError
from cardamage.runs.paths import RunPaths
from cardamage.system.console import EventLog
from cardamage.training.trackers import Trackers

ROWS = [{"epoch": 1, "train_loss": 0.5, "lr": 0.1}, {"epoch": 2, "train_loss": 0.25, "lr": 0.05}]
THIRD = {"epoch": 3, "train_loss": 0.125, "lr": 0.025}
TESTED = [
    {"epoch": row["epoch"], "checkpoint": "x", "loss": 1.0, "images": 4, "weights_sha256": "0"}
    for row in ROWS
]
PICTURES = {"samples/000001": np.zeros((4, 12, 3), np.uint8)}


@pytest.fixture(autouse=True)
def _accelerate_is_started():
    PartialState()  # its trackers ask it which process this is


def experiment(*track):
    data = {"source": "synthetic", "classes": ["dent"]}
    return loading.parse({"data": data, "track": list(track)})


def told(run, name):
    """Epoch and value of a scalar, in the order TensorBoard shows them."""
    events = EventAccumulator(str(run.root / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def ended(run, *rows):
    """Put on record that these epochs were trained."""
    run.root.mkdir(exist_ok=True)
    for row in rows:
        speed = {"images_per_second": 8.0, "peak_memory_bytes": 1 << 30}
        EventLog(run.events).write("epoch", stage="train", epoch=row["epoch"], **speed)


def test_tensorboard_shows_every_epoch_once_whatever_was_killed(tmp_path):
    run = RunPaths(tmp_path / "cars")
    ended(run, ROWS[0])
    with Trackers(experiment("tensorboard"), run, [], enabled=True) as trackers:
        trackers.log(ROWS[:1])
    # Killed behind the save of epoch 2 and before it was told: the next start tells it.
    for _ in range(2):  # killed again behind epoch 3, which is done once more
        with Trackers(experiment("tensorboard"), run, ROWS, enabled=True) as trackers:
            ended(run, THIRD)
            trackers.log([THIRD])
    with Trackers(experiment("tensorboard"), run, [*ROWS, THIRD], enabled=True) as trackers:
        trackers.log(TESTED, "test")
        trackers.pictures(PICTURES, 2)
    assert told(run, "train_loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert [step for step, _ in told(run, "lr")] == [1, 2, 3]
    assert told(run, "images_per_second") == [(1, 8.0), (3, 8.0)]
    assert told(run, "peak_memory_bytes") == [(1, 2.0**30), (3, 2.0**30)]
    assert told(run, "test_loss") == [(1, 1.0), (2, 1.0)]
    assert len(list((run.root / "tensorboard").iterdir())) == 4  # files of one run, no runs


@pytest.mark.filterwarnings("ignore")  # of its store in files, and of how it begins threads
def test_mlflow_keeps_one_run_with_every_epoch_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "")  # put back afterwards
    run = RunPaths(tmp_path / "cars")
    run.root.mkdir()
    first, second = ({**row, "val_dice[broken lamp]": 0.5} for row in ROWS)
    with Trackers(experiment("mlflow"), run, [], enabled=True) as trackers:
        trackers.log([first])
    # Killed behind the save of epoch 2 and before it was told, then behind epoch 3.
    for _ in range(2):
        with Trackers(experiment("mlflow"), run, [first, second], enabled=True) as trackers:
            trackers.log([THIRD])
            trackers.log(TESTED, "test")
            trackers.pictures(PICTURES, 2)
    (found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert found.info.run_name == "cars"
    assert (found.data.params["optim.lr"], found.data.params["seed"]) == ("0.001", "0")
    assert (tmp_path / "mlruns").is_dir()
    client = mlflow.MlflowClient()
    for name, expected in {
        "train_loss": [(1, 0.5), (2, 0.25), (3, 0.125)],
        "test_loss": [(1, 1.0), (2, 1.0)],
        "val_dice/broken lamp": [(1, 0.5), (2, 0.5)],
    }.items():
        history = client.get_metric_history(found.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in history) == expected
    (picture,) = client.list_artifacts(found.info.run_id, "samples")
    assert picture.path == "samples/000001.png"


def test_another_process_tells_nothing(tmp_path):
    run = RunPaths(tmp_path / "cars")
    with Trackers(experiment("tensorboard"), run, ROWS, enabled=False) as trackers:
        trackers.log(ROWS[:1])
    assert not run.root.exists()


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path, monkeypatch, capsys, method):
    def fail(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(TensorBoardTracker, method, fail)
    warnings = []
    monkeypatch.setattr(
        "cardamage.training.trackers.log.warning", lambda *told: warnings.append(told)
    )
    run = RunPaths(tmp_path / "cars")
    with Trackers(experiment("tensorboard"), run, ROWS, enabled=True) as trackers:
        trackers.log(ROWS[1:])
        trackers.log(ROWS[1:])
    ((_, name, kind, text),) = warnings
    assert (name, kind, text) == ("tensorboard", "ConnectionError", "no network")


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    require_installed(["tensorboard"])
    monkeypatch.setattr("cardamage.config.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        require_installed(["tensorboard"])


def test_wandb_continues_the_run_it_began_and_is_told_nothing_twice(tmp_path, monkeypatch):
    given, settings, logged = [], [], []

    class Stub:
        def define_metric(self, *_, **__): ...

    def start(tracker):
        given.append(tracker.init_kwargs)
        tracker.run = Stub()

    monkeypatch.setattr(WandBTracker, "start", start)
    monkeypatch.setattr(
        WandBTracker, "store_init_configuration", lambda _, values: settings.append(values)
    )
    monkeypatch.setattr(
        WandBTracker, "log", lambda _, values, step=None: logged.append((step, values))
    )
    monkeypatch.setattr(WandBTracker, "finish", lambda _: None)
    run = RunPaths(tmp_path / "cars")
    run.root.mkdir()
    with Trackers(experiment("wandb"), run, ROWS[:1], enabled=True):
        pass
    for _ in range(2):
        with Trackers(experiment("wandb"), run, ROWS, enabled=True) as trackers:
            trackers.log(TESTED[:1], "test")
    assert logged == [
        (1, {"train_loss": 0.5, "lr": 0.1}),
        (2, {"train_loss": 0.25, "lr": 0.05}),
        (None, {"test_loss": 1.0, "epoch": 1}),  # its axis; step 1 has passed
    ]
    first, *others = given
    assert [first, first] == others
    assert settings[0]["data.classes"] == [{"dent": ["dent"]}]
    assert (first["name"], first["resume"], first["dir"]) == ("cars", "allow", tmp_path / "cars")


@pytest.mark.filterwarnings("ignore")
def test_trackio_keeps_one_run_with_every_epoch_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run = RunPaths(tmp_path / "cars")
    run.root.mkdir()
    for rows in (ROWS[:1], ROWS, ROWS):
        with Trackers(experiment("trackio"), run, rows, enabled=True) as trackers:
            trackers.log(TESTED, "test")
            trackers.pictures(PICTURES, 2)
    (record,) = SQLiteStorage.get_run_records("cardamage")
    rows = SQLiteStorage.get_logs("cardamage", record["name"])
    assert [row["step"] for row in rows if "train_loss" in row] == [1, 2]
    assert [row["step"] for row in rows if "test_loss" in row] == [1, 2]
    assert [row["step"] for row in rows if "samples/000001" in row] == [2]
