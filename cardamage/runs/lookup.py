"""What a word of a command line means: a file, a run or a study, by name or by path."""

from pathlib import Path

from cardamage.config import loading
from cardamage.config.shipped import shipped_file, shipped_names
from cardamage.config.yaml12 import read_mapping
from cardamage.errors import ConfigError, RunError, UserError, did_you_mean
from cardamage.runs.paths import RunPaths, StudyPaths
from cardamage.runs.study import is_study, read_study

RUNS_DIR = Path("runs")
"""Where run directories lie unless a command says otherwise."""

SUFFIXES = (".yaml", ".yml")


def locate(word: str, runs_dir: Path = RUNS_DIR) -> Path:
    """The YAML file, or the directory of a run or study, that a CONFIG argument means.

    A path that is there comes first; then a name: that of a file here, of a run in ``runs_dir``,
    of a config that comes with the package.

    Raises:
        ConfigError: there is none, or a file and a run of that name are different runs.
    """
    path = Path(word)
    if path.is_file() or _is_run(path):
        return path
    if path.name != word or path.suffix in SUFFIXES:
        raise _absent(path)
    file, run = file_of(word), runs_dir / word
    if file.is_file():
        if _is_run(run):
            _check_same(word, file, run)
        return file
    if _is_run(run):
        return run
    if shipped := shipped_file(word):
        return shipped
    if member := _in_a_study(word, runs_dir):
        return member.root
    here = [found.stem for suffix in SUFFIXES for found in Path().glob(f"*{suffix}")]
    names = [*here, *run_names(runs_dir), *shipped_names()]
    raise ConfigError(
        f'there is no config or run "{word}"{did_you_mean(word, names)}; looked for '
        f"{file.absolute()}, {run.absolute()} and the shipped configs "
        f"({', '.join(shipped_names())})"
    )


def find_run(word: str, runs_dir: Path = RUNS_DIR) -> RunPaths:
    """The run or study that a RUN argument means: by name, by path, or by its YAML file.

    A run of a study also goes by the name that the study's file has for it, where only one study
    has such a run; and one that was named so, by the name it would have now.

    Raises:
        RunError: there is no such run, or several studies have one.
    """
    for root in (runs_dir / word, Path(word)):
        if is_study(root):
            return StudyPaths(root)
        if (run := RunPaths(root)).config.is_file():
            return run
    file = Path(word) if Path(word).suffix in SUFFIXES else file_of(word)
    if file.is_file():
        name = str(read_mapping(file).get("name", file.stem))
        if _is_run(runs_dir / name):
            return find_run(name, runs_dir)
        raise RunError(
            f"{file.absolute()} has not been run: there is no {(runs_dir / name).absolute()}; run "
            f"`cardamage submit {word}`, or name another folder with --runs-dir"
        )
    if member := _in_a_study(word, runs_dir):
        return member
    names = run_names(runs_dir)
    there = f"; there are: {', '.join(names[:20])}" if names else ", where there are no runs"
    hint = did_you_mean(Path(word).name, names)
    raise RunError(f'there is no run "{word}"{hint} in {runs_dir.absolute()}{there}')


def run_names(runs_dir: Path) -> list[str]:
    """The names of the runs and studies of a folder, sorted; none where there is no such folder."""
    if not runs_dir.is_dir():
        return []
    return sorted(path.name for path in runs_dir.iterdir() if _is_run(path))


def file_of(word: str) -> Path:
    """The YAML file that a name means where one stands, whether it is there or not."""
    files = [Path(f"{word}{suffix}") for suffix in SUFFIXES]
    return next(filter(Path.is_file, files), files[0])


def _in_a_study(word: str, runs_dir: Path) -> RunPaths | None:
    """The run of a study by its name with or without the study's; None where none has it."""
    found: list[RunPaths] = []
    for name in run_names(runs_dir):
        if not is_study(runs_dir / name):
            continue
        study = StudyPaths(runs_dir / name)
        record = read_study(study)
        found += [
            run
            for member in record.runs
            if word in (member.removeprefix(f"{record.name}-"), f"{record.name}-{member}")
            and (run := study.beside(member)).config.is_file()
        ]
    if len(found) > 1:
        names = ", ".join(run.root.name for run in found)
        raise RunError(f'several studies have a run "{word}": {names}; name one of these')
    return found[0] if found else None


def _is_run(folder: Path) -> bool:
    return RunPaths(folder).config.is_file() or is_study(folder)


def _check_same(word: str, file: Path, run: Path) -> None:
    """Raise ConfigError when a file and a run of one name are not the same run."""
    try:
        values = read_mapping(file)
        name = str(values.get("name", file.stem))
        same = name == word and loading.is_study(values) == is_study(run)
    except UserError:  # reading it tells what is wrong
        return
    if not same:
        raise ConfigError(
            f'"{word}" is both the file {file.absolute()}, of the run "{name}", and the run '
            f"{run.absolute()}; say {file} or {run}"
        )


def _absent(path: Path) -> ConfigError:
    """What is wrong with a path at which there is no file, and no run or study."""
    if path.is_dir():
        return ConfigError(
            f"{path.absolute()} is no run directory: it has no config.yaml; name a YAML file, or a "
            f"folder such as {RUNS_DIR}/unet2"
        )
    twins = [twin for suffix in SUFFIXES if (twin := path.with_suffix(suffix)).is_file()]
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [found.name for found in beside if found.suffix in SUFFIXES or _is_run(found)]
    hint = f' (did you mean "{twins[0]}"?)' if twins else did_you_mean(path.name, names)
    return ConfigError(f"{path.absolute()} does not exist{hint}; name a YAML file or a run")
