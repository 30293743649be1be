"""The readers of foreign files on inputs that fuzzing kept, and on many made up on the spot.

How to fuzz for longer: SECURITY.md.
"""

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardamage.data.shards.reader import ShardReader
from tests.helpers import hostile_input
from tests.helpers.hostile_input import (
    EMPTY_SPLIT,
    FIX_CRCS,
    FIX_MANIFEST,
    OVERRIDES_FROM,
    READERS,
    join_parts,
    split_parts,
)

with zipfile.ZipFile(Path(__file__).parent / "corpus.zip") as _corpus:
    CORPUS = {name: _corpus.read(name) for name in _corpus.namelist()}
"""What fuzzing kept, by reader and name, as in ``coco/stored.zip``."""
QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A prepared folder for each reader."""
    made = {}
    for reader, (prepare, _) in READERS.items():
        made[reader] = tmp_path_factory.mktemp(reader)
        prepare(made[reader])
    return made


@pytest.mark.parametrize("reader", READERS)
def test_inputs_that_fuzzing_kept(folders: dict[str, Path], reader: str):
    inputs = [content for name, content in CORPUS.items() if name.startswith(f"{reader}/")]
    assert len(inputs) >= 4
    for content in inputs:
        READERS[reader][1](folders[reader], content)


def test_an_oracle_that_notices():
    """What a message must not hold is noticed, so the tests here can fail."""
    for text in ("two\nlines", "next\x85line", "an \x1b[2J escape", "a \x9b escape"):
        with pytest.raises(AssertionError):
            hostile_input.check_message(text)
    with pytest.raises(UnicodeEncodeError):
        hostile_input.check_message("half \ud800 a pair")


# --- the COCO reader

ODD_NUMBERS = st.sampled_from(
    [0, -1, 0.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**400]
) | st.sampled_from([float("nan"), float("inf"), 65_535, 65_536, 200_000_000])
NUMBERS = ODD_NUMBERS | st.integers(-3, 12) | st.floats()
NAMES = st.sampled_from(
    ["a.jpg", "b.jpg", "sub/c.jpg", "./a.jpg", "../a.jpg", "/etc/passwd", "C:\\a.jpg", "a\\b"]
) | st.sampled_from(["\x00", "\x1b[2J.jpg", "\u202egpj.exe", "\ud800", "", ".", "a" * 5000])
COUNTS = st.lists(NUMBERS, max_size=5) | st.text(
    st.characters(min_codepoint=40, max_codepoint=120), max_size=24
)
SEGMENTATION = (
    st.lists(st.lists(NUMBERS, max_size=10), max_size=3)
    | st.fixed_dictionaries({"size": st.lists(NUMBERS, min_size=1, max_size=3), "counts": COUNTS})
    | st.fixed_dictionaries({"size": st.just([8, 8]), "counts": COUNTS})
    | st.none()
    | st.text(max_size=3)
)
IDS = st.integers(0, 2) | NUMBERS | st.none() | st.booleans() | st.text(max_size=2)
SIZES = st.just(8) | NUMBERS


def records(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[list[object]]:
    """Records with these fields, each of which may be missing, and things that are none."""
    return st.lists(
        st.fixed_dictionaries(fields) | st.fixed_dictionaries({}, optional=fields) | IDS, max_size=4
    )


EXPORT = st.fixed_dictionaries(
    {
        "images": records(id=IDS, file_name=NAMES, width=SIZES, height=SIZES),
        "annotations": records(
            id=IDS, image_id=IDS, category_id=IDS, segmentation=SEGMENTATION, iscrowd=IDS
        ),
        "categories": records(id=IDS, name=NAMES, supercategory=NAMES | NUMBERS),
    }
)


@given(export=EXPORT)
@QUICK
def test_exports_of_odd_values(folders: dict[str, Path], export: dict[str, object]):
    text = json.dumps(export).encode("utf-8", "surrogatepass")
    hostile_input.read_coco(folders["coco"], text)


@given(segmentation=SEGMENTATION, width=st.integers(1, 40), height=st.integers(1, 40))
@QUICK
def test_segmentations_of_a_good_image(folders, segmentation, width: int, height: int):
    """Whatever passes the checks is painted: pycocotools is given nothing it cannot take."""
    if isinstance(segmentation, dict) and segmentation["size"] == [8, 8]:
        segmentation["size"] = [height, width]
    image = {"id": 1, "file_name": "a.jpg", "width": width, "height": height}
    annotation = {"image_id": 1, "category_id": 1, "segmentation": segmentation}
    export = {**EMPTY_SPLIT, "images": [image], "annotations": [annotation]}
    hostile_input.read_coco(folders["coco"], json.dumps(export).encode())


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("place", ["images", "info"])
def test_exports_nested_deeply(folders, opening: str, place: str):
    text = f'{{"{place}": [' + opening * 50_000
    hostile_input.read_coco(folders["coco"], text.encode())


@given(st.binary(max_size=200), st.integers(0, 2000))
@QUICK
def test_zips_with_bytes_changed(folders, piece: bytes, at: int):
    whole = CORPUS["coco/stored.zip"]
    hostile_input.read_coco(folders["coco"], whole[:at] + piece + whole[at + len(piece) :])


# --- the config loader

SCALARS = (
    NUMBERS.filter(lambda number: number != 10**400).map(str)
    | st.sampled_from(["9" * 5000, "0x" + "f" * 5000, ".nan", "-.inf", "!!python/name:os.system x"])
    | st.sampled_from([r'"\0"', r'"\ud800"', r'"\e]0;x\a"', r'"\UFFFFFFFF"', r'"a\nb"', "~", '"'])
    | st.sampled_from(["!!binary x", "!!timestamp 2020-01-01", "*nothing", "&a x", "unet2", "base"])
    | st.text(max_size=6)
)
KEYS = (
    st.sampled_from(
        ["name", "seed", "data", "source", "classes", "model", "optim", "lr", "train", "image_size"]
    )
    | st.sampled_from(
        ["sweep", "experiments", "config", "grid", "overrides", "compare", "runs", "backend"]
    )
    | st.sampled_from(["<<", "? [a]", '"a\\nb"', '"\\x9b"', "1", "base.yaml", "data.classes"])
)
YAML = st.recursive(
    SCALARS | st.just("base.yaml"),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEYS, inner, max_size=4).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=12,
)


@given(values=st.dictionaries(KEYS, YAML, max_size=5), override=YAML | st.text(max_size=8))
@QUICK
def test_configs_of_odd_values(folders, values: dict[str, str], override: str):
    lines = "".join(f"{key}: {value}\n" for key, value in values.items())
    for text in (lines, hostile_input.BASE + lines):
        content = text.encode("utf-8", "replace")
        content += OVERRIDES_FROM + b"seed=" + override.encode("utf-8", "replace")
        hostile_input.read_config(folders["config"], content)


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 30)),
        "[" * 20_000,
        "{a: " * 20_000,
        "- " * 20_000,
        "a: " + "? " * 5_000,
        "&a [*a]",
        "name: \x00",
        "name: \ud800",
    ],
    ids=[
        "aliases",
        "lists",
        "mappings",
        "dashes",
        "keys",
        "itself",
        "nul",
        "half",
    ],
)
def test_documents_that_are_bombs(folders, text: str):
    hostile_input.read_config(folders["config"], text.encode("utf-8", "surrogatepass"))


# --- the manifest and shard reader


@given(
    name=st.sampled_from(["png-3", "jpg-3"]),
    part=st.integers(0, 2),
    at=st.floats(0, 1),
    piece=st.binary(min_size=1, max_size=12),
    flags=st.integers(0, FIX_MANIFEST | FIX_CRCS),
)
@settings(QUICK, max_examples=200)
def test_shards_with_bytes_changed(folders, name: str, part: int, at: float, piece, flags: int):
    parts = list(split_parts(CORPUS[f"shards/{name}"]))
    start = int(at * len(parts[part]))
    parts[part] = parts[part][:start] + piece + parts[part][start + len(piece) :]
    parts[3] = flags
    hostile_input.read_shards(folders["shards"], join_parts(tuple(parts)))


@given(
    key=st.sampled_from(["version", "image_size", "class_names", "splits", "fingerprint"]),
    value=NUMBERS | st.lists(NUMBERS, max_size=3) | NAMES | st.none(),
)
@QUICK
def test_manifests_of_odd_values(folders, key: str, value: object):
    manifest, index, tar, _ = split_parts(CORPUS["shards/png-3"])
    text = json.dumps({**json.loads(manifest), key: value}).encode()
    hostile_input.read_shards(folders["shards"], join_parts((text, index, tar, FIX_MANIFEST)))


def test_a_manifest_nested_deeply(folders):
    manifest = b'{"version": ' + b"[" * 100_000
    hostile_input.read_shards(folders["shards"], join_parts((manifest, b"", b"", 0)))


@pytest.mark.parametrize("name", ["png-3", "jpg-3"])
def test_the_seeds_of_shards_are_good(folders: dict[str, Path], name: str):
    """Else what is changed in them above would only ever meet the first check."""
    hostile_input.read_shards(folders["shards"], CORPUS[f"shards/{name}"])
    with ShardReader(folders["shards"] / "shards", "train") as reader:
        assert len(reader) == 2
        assert reader.read(1).image.shape == (*reader.image_size, 3)
