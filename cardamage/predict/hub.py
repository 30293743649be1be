"""Models on the Hugging Face Hub: pushed with their card, and fetched by name."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cardamage.errors import CardamageError, ConfigError, require_extra
from cardamage.runs.lookup import RUNS_DIR

WEIGHTS, CARD = "model.safetensors", "README.md"
"""The checkpoint and the model card, as they are named in a repository."""

_SIGN_IN = "run `hf auth login`, or set HF_TOKEN to a token that may write"
_FILES = (".safetensors", ".onnx", ".yaml", ".yml")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_repository(word: str) -> bool:
    """Whether a word may name a model on the Hub, ``user/name``, and nothing of this machine."""
    path = Path(word)
    is_local = path.exists() or path.parent.exists() or path.parent == RUNS_DIR
    return bool(_NAME.fullmatch(word)) and not is_local and path.suffix not in _FILES


def push(repository: str, checkpoint: Path, card: str, *, private: bool, update: bool) -> str:
    """Put a checkpoint and its card into a repository of its own; returns where to see it.

    Args:
        repository: ``user/name``.
        update: add a version to a repository that is there; else it must not be.

    Raises:
        ConfigError: the name is none or taken, the token is missing, wrong or not allowed to.
        CardamageError: the Hub cannot be reached, or fails.
    """
    if not _NAME.fullmatch(repository):
        raise ConfigError(f'"{repository}" is no name on the Hub; write user/name')
    require_extra("huggingface_hub", "hub")
    from huggingface_hub import CommitOperationAdd, HfApi  # noqa: PLC0415 - a second

    api = HfApi(endpoint=_endpoint(), library_name="cardamage")
    with _one_line(repository):
        if not update:
            api.create_repo(repository, private=private)
        api.create_commit(
            repository,
            [
                CommitOperationAdd(WEIGHTS, str(checkpoint)),
                CommitOperationAdd(CARD, card.encode()),
            ],
            commit_message=f"Upload {checkpoint.stem}",
        )
    return f"{api.endpoint}/{repository}"


def fetch(repository: str) -> Path:
    """The checkpoint of a repository, kept in the Hub's cache on this machine.

    Raises:
        ConfigError: there is no such repository, or it holds no model of this software.
        CardamageError: the Hub cannot be reached and the cache does not have it.
    """
    require_extra("huggingface_hub", "hub")
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - a second

    with _one_line(repository):
        found = hf_hub_download(repository, WEIGHTS, endpoint=_endpoint(), library_name="cardamage")
    return Path(found)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _one_line(repository: str) -> Iterator[None]:
    """Say in one line what the Hub refused."""
    from huggingface_hub import errors  # noqa: PLC0415 - a second

    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise ConfigError(f"pushing {repository} needs a token; {_SIGN_IN}") from None
    except errors.RemoteEntryNotFoundError:
        raise ConfigError(
            f"{repository} on the Hub has no {WEIGHTS}, so cardamage did not push it; choose "
            f"another"
        ) from None
    except errors.HfHubHTTPError as error:
        raise _refusal(repository, error.response.status_code) from None
    except ValueError as error:
        raise ConfigError(
            f"{repository}: the Hub refuses what it was given ({_first(error)}); mend it, as in "
            f"--license, and push with --update if the repository was made"
        ) from None
    except Exception as error:
        failed = isinstance(error, OSError) or type(error).__module__.startswith("http")
        if not failed and not str(error).startswith("Error while uploading"):
            raise
        raise CardamageError(
            f"{repository}: the Hub cannot be reached from here ({_first(error)}); try again where "
            f"there is a network"
        ) from None


def _refusal(repository: str, status: int) -> CardamageError:
    match status:
        case 409:
            what = "is taken; choose another name, or add a version to it with --update"
        case 401:
            what = f"is not there, or the Hub does not know the token; {_SIGN_IN}"
        case 403:
            what = f"may not be written to with this token; {_SIGN_IN}, or choose another name"
        case 404:
            what = "is not on the Hub, or not for this token to see; check the name"
        case _:
            return CardamageError(f"{repository}: the Hub answered {status}; try again later")
    return ConfigError(f"{repository} {what}")


def _first(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
