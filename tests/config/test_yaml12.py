"""YAML read as version 1.2's core schema says."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cardamage.config import yaml12
from cardamage.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 0.0003),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        (".INF", math.inf),
        ("12", 12),
        ("+12", 12),
        ("017", 17),
        ("0o17", 15),
        ("0xfF", 255),
        ("~", None),
        ("", None),
        ("null", None),
        ("true", True),
        ("False", False),
    ],
)
def test_scalar_of_the_core_schema(text: str, value: object):
    loaded = yaml12.load(text)
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize(
    "text", ["nan", "no", "on", "Yes", "y", "1:30", "1_000", "2020-01-01", "="]
)
def test_what_only_version_1_1_converts_stays_text(text: str):
    assert yaml12.load(text) == text


def test_not_a_number_is_read():
    assert math.isnan(yaml12.load(".nan"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", '"a" is given twice'),
        ("a: {b: 1, b: 1}", '"b" is given twice'),
        ("1: x", "the key 1 is not a string"),
        ("3e-4: x", "is not a string"),
        ("? [a]\n: x", "is not a string"),
    ],
)
def test_key_is_a_string_and_given_once(text: str, complaint: str):
    with pytest.raises(yaml.YAMLError, match=complaint):
        yaml12.load(text)


@pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!timestamp", "!!binary", "!own"])
def test_tag_beyond_the_core_schema_is_refused(tag: str):
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        yaml12.load(f"{tag} x")


def test_explicit_boolean_is_checked():
    assert yaml12.load("!!bool TRUE") is True
    with pytest.raises(yaml.YAMLError, match='"yes" is not a boolean'):
        yaml12.load("!!bool yes")


def test_alias_stands_for_its_anchor():
    assert yaml12.load("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("text", ["&a [*a]", "a: &x {b: *x}", "&a {k: [1, {m: *a}]}"])
def test_value_that_contains_itself_is_refused(text: str, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="inside a value with an anchor"):
        yaml12.read_mapping(path)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\ufeff"))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abn:- 1e~", max_size=5), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_dump_is_read_back_as_it_was(value: object):
    loaded = yaml12.load(yaml12.dump(value))
    assert loaded == value
    assert repr(loaded) == repr(value)  # 1, 1.0 and true are told apart, and keys keep their order


@pytest.mark.parametrize(
    "text", ["3e-4", "no", "0o17", "1:30", "~", "null", "", " x ", "a: b", "#"]
)
def test_text_that_looks_like_something_else_survives(text: str):
    assert yaml12.load(yaml12.dump({"key": text})) == {"key": text}


@pytest.mark.parametrize(
    "text",
    [r'"\0"', r'"\e[2J"', r'"\ud800"', r'{"a\x9b": 1}', r'"\x7f"'],
)
def test_what_is_no_text_cannot_come_in_by_an_escape(text: str):
    with pytest.raises(yaml.YAMLError, match="is no text; remove it"):
        yaml12.load(text)


def test_text_of_several_lines_with_tabs_stays():
    assert yaml12.load(r'"a\tb\r\nc\u2028d"') == "a\tb\r\nc\u2028d"


def test_an_escape_that_stands_for_no_character():
    with pytest.raises(ValueError, match="stands for no character"):
        yaml12.load(r'"\UFFFFFFFF"')


def test_a_path_with_a_nul_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        yaml12.read_mapping(tmp_path / "a\0b")


def test_a_number_of_thousands_of_digits_is_no_integer():
    assert yaml12.load("9" * 5000) == math.inf
    assert yaml12.load(yaml12.dump(["9" * 5000])) == ["9" * 5000]


@pytest.mark.parametrize("bracket", ["[", "{a: ", "- "])
def test_a_document_nested_too_deeply(bracket: str):
    with pytest.raises(ValueError, match="nested too deeply"):
        yaml12.load(bracket * 5000)
