"""What trackers are told, and that none of them ends training."""

import pytest
from accelerate import PartialState
from accelerate.tracking import TensorBoardTracker, WandBTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cardamage.config import loading
from cardamage.config.trackers import require_installed
from cardamage.errors import ConfigError
from cardamage.runs.paths import RunPaths
from cardamage.training.outputs import Speed
from cardamage.training.trackers import Trackers

ROWS = [{"epoch": 1, "train_loss": 0.5, "lr": 0.1}, {"epoch": 2, "train_loss": 0.25, "lr": 0.05}]
SPEED = Speed(seconds=2.0, images_per_second=8.0, data_wait_share=0.25)


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


def test_tensorboard_is_told_every_epoch_once_whatever_was_killed(tmp_path):
    run = RunPaths(tmp_path / "cars")
    with Trackers(experiment("tensorboard"), run, [], enabled=True) as trackers:
        trackers.log(ROWS[0], SPEED)
    # Killed behind the save of epoch 2 and before it was told: the next start tells it.
    with Trackers(experiment("tensorboard"), run, ROWS, enabled=True) as trackers:
        trackers.log({"epoch": 3, "train_loss": 0.125, "lr": 0.025}, SPEED)
    # Killed again behind epoch 3, which is done once more.
    with Trackers(experiment("tensorboard"), run, ROWS, enabled=True) as trackers:
        trackers.log({"epoch": 3, "train_loss": 0.125, "lr": 0.025}, SPEED)
    assert told(run, "train_loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert told(run, "images_per_second") == [(1, 8.0), (3, 8.0)]


@pytest.mark.filterwarnings("ignore")  # of its store in files, and of how it begins threads
def test_mlflow_keeps_one_run_with_every_epoch_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "")  # put back afterwards
    run = RunPaths(tmp_path / "cars")
    run.root.mkdir()
    first, second = ({**row, "val_dice[broken lamp]": 0.5} for row in ROWS)
    with Trackers(experiment("mlflow"), run, [], enabled=True) as trackers:
        trackers.log(first, SPEED)
    # Killed behind the save of epoch 2 and before it was told, then behind epoch 3.
    for _ in range(2):
        with Trackers(experiment("mlflow"), run, [first, second], enabled=True) as trackers:
            trackers.log({"epoch": 3, "train_loss": 0.125}, SPEED)
    (found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert found.info.run_name == "cars"
    assert (found.data.params["optim.lr"], found.data.params["seed"]) == ("0.001", "0")
    assert (tmp_path / "mlruns").is_dir()
    client = mlflow.MlflowClient()
    for name, expected in {
        "train_loss": [(1, 0.5), (2, 0.25), (3, 0.125)],
        "val_dice/broken lamp": [(1, 0.5), (2, 0.5)],
    }.items():
        history = client.get_metric_history(found.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in history) == expected


def test_another_process_tells_nothing(tmp_path):
    run = RunPaths(tmp_path / "cars")
    with Trackers(experiment("tensorboard"), run, ROWS, enabled=False) as trackers:
        trackers.log(ROWS[0], SPEED)
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
        trackers.log(ROWS[1], SPEED)
        trackers.log(ROWS[1], SPEED)
    ((_, name, kind, text),) = warnings
    assert (name, kind, text) == ("tensorboard", "ConnectionError", "no network")


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    require_installed(["tensorboard"])
    monkeypatch.setattr("cardamage.config.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        require_installed(["tensorboard"])


def test_wandb_continues_the_run_it_began(tmp_path, monkeypatch):
    given = []
    settings = []
    monkeypatch.setattr(WandBTracker, "start", lambda tracker: given.append(tracker.init_kwargs))
    monkeypatch.setattr(
        WandBTracker, "store_init_configuration", lambda _, values: settings.append(values)
    )
    (tmp_path / "cars").mkdir()
    for rows in ([], ROWS):
        with Trackers(experiment("wandb"), RunPaths(tmp_path / "cars"), rows, enabled=True):
            pass
    first, again = given
    assert first == again
    assert settings[0]["data.classes"] == [{"dent": ["dent"]}]
    assert (first["name"], first["resume"], first["dir"]) == ("cars", "allow", tmp_path / "cars")
