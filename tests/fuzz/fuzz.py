"""Fuzz a reader of foreign files, guided by the code that its inputs reach.

    python -m tests.fuzz.fuzz READER [CORPUS] [libFuzzer's options]

READER is coco, config or shards. Inputs that reach new code are kept in CORPUS, a folder of their
own; the seeds in tests/fuzz/corpus.zip are read beside it. An input that raises an unexpected
exception, hangs or fills the memory is written to the current folder, the first of each kind.
Needs ``pip install -e '.[fuzz]'``.
"""

import json
import random
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import yaml

with atheris.instrument_imports(include=["cardamage"]):
    from tests.helpers import hostile_input

SEEDS = Path(__file__).parent / "corpus.zip"

TEXTS = ("", "\x00", "\x1b[2J", "\ud800", "../../x", "/etc/passwd", "a\\b", "sub/c.jpg", "b.jpg")
NUMBERS = (-1, 0, 1, 2, 3, 8, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, 10**400)
FLOATS = (0.5, -0.0, 1e308, float("inf"), float("nan"), 1e-320)
TREES = ([], {}, [[]], [[1, 1, 6, 1, 6, 6]], {"size": [8, 8], "counts": "P2"})
ODD = (None, True, *TEXTS, *NUMBERS, *FLOATS, *TREES)
"""Values that readers stumble over."""

Place = tuple[Any, Any]
"""A dict or list, and one of its keys."""


def places_in(tree: Any) -> list[Place]:
    """Every place inside a tree of dicts and lists, or the first few thousand of them."""
    found: list[Place] = []
    waiting = [tree]
    while waiting and len(found) < 2000:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found


def mutate_tree(tree: Any, chance: random.Random) -> Any:
    """A tree of dicts and lists with a few places changed."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = places_in(tree) if isinstance(tree, dict | list) else []
        if not places:
            return chance.choice(ODD)
        mutate_place(places, chance)
    return tree


def mutate_place(places: list[Place], chance: random.Random) -> None:
    """Change what stands at one of the places."""
    holder, key = chance.choice(places)
    match chance.randrange(8):
        case 0 | 1:
            holder[key] = chance.choice(ODD)
        case 2:
            del holder[key]
        case 3:
            other, other_key = chance.choice(places)
            holder[key] = copied(other[other_key])
        case 4 if isinstance(holder, list):
            holder.insert(key, copied(holder[key]))
        case 5 if isinstance(holder, dict):
            holder[mutate_text(str(key))] = holder[key]
        case 6 if isinstance(holder[key], int | float) and abs(holder[key]) < 2**62:
            holder[key] += chance.choice((-1, 1, 0.5, 7, 2**31, -(2**31)))
        case _ if isinstance(holder[key], str):
            holder[key] = mutate_text(holder[key])
        case _:
            holder[key] = [holder[key]]


def copied(value: Any) -> Any:
    """A copy that shares nothing with ``value``."""
    return json.loads(json.dumps(value))


def mutate_text(text: str) -> str:
    """A text as libFuzzer changes it, which knows what the code compared it with."""
    content = atheris.Mutate(text.encode("utf-8", "surrogatepass") or b" ", len(text) + 8)
    return content.decode("utf-8", "replace")


def mutate_json(content: bytes, max_size: int, chance: random.Random) -> bytes:
    """JSON with a few values changed; other bytes as libFuzzer changes them."""
    if chance.random() < 0.75:
        try:
            tree = mutate_tree(json.loads(content), chance)
            return json.dumps(tree).encode("utf-8", "surrogatepass")[:max_size]
        except (ValueError, RecursionError, TypeError):
            pass
    return atheris.Mutate(content, max_size)


def mutate_coco(content: bytes, max_size: int, seed: int) -> bytes:
    """An annotation file or a .zip, changed."""
    if content.startswith(b"PK"):
        return atheris.Mutate(content, max_size)
    return mutate_json(content, max_size, random.Random(seed))


def mutate_config(content: bytes, max_size: int, seed: int) -> bytes:
    """A config with its overrides, changed."""
    chance = random.Random(seed)
    text, *overrides = content.split(hostile_input.OVERRIDES_FROM)
    if chance.random() < 0.5:
        try:
            tree = mutate_tree(yaml.safe_load(text), chance)
            text = yaml.safe_dump(tree, default_flow_style=chance.choice((True, False))).encode()
            return hostile_input.OVERRIDES_FROM.join((text, *overrides))[:max_size]
        except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError):
            pass
    return atheris.Mutate(content, max_size)


def mutate_shards(content: bytes, max_size: int, seed: int) -> bytes:
    """A shard folder with its manifest, its index, its tar or the fitting of checksums changed."""
    chance = random.Random(seed)
    manifest, index, tar, flags = hostile_input.split_parts(content)
    match chance.randrange(8):
        case 0 | 1 | 2:
            manifest = mutate_json(manifest, 4096, chance)
        case 3 | 4:
            index = atheris.Mutate(index, 4096)
        case 5 | 6:
            tar = atheris.Mutate(tar, max(1, max_size - len(manifest) - len(index) - 16))
        case _:
            flags = chance.randrange(4)
    return hostile_input.join_parts((manifest, index, tar, flags))[:max_size]


MUTATORS = {"coco": mutate_coco, "config": mutate_config, "shards": mutate_shards}


def writing_down(read: Callable[[bytes], None], reader: str) -> Callable[[bytes], None]:
    """``read``, whose exceptions are printed, and their inputs kept, once for each place."""
    known: set[str] = set()

    def read_one(content: bytes) -> None:
        try:
            read(content)
        except Exception as error:  # noqa: BLE001 - whatever leaves is what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"
            if place not in known:
                known.add(place)
                Path(f"exception-{reader}-{place}").write_bytes(content)
                print(f"EXCEPTION {place}")
                traceback.print_exc()

    return read_one


def main() -> None:
    """Fuzz the reader that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in MUTATORS:
        sys.exit(__doc__)
    reader, *options = sys.argv[1:]
    prepare, read = hostile_input.READERS[reader]
    with tempfile.TemporaryDirectory(prefix=f"fuzz {reader} ") as name:
        folder, seeds = Path(name) / "read", Path(name) / "seeds"
        folder.mkdir()
        prepare(folder)
        with zipfile.ZipFile(SEEDS) as corpus:
            corpus.extractall(seeds)
        atheris.Setup(
            [sys.argv[0], *options, str(seeds / reader)],
            writing_down(lambda content: read(folder, content), reader),
            custom_mutator=MUTATORS[reader],
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
