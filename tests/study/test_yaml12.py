import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.study import yaml12


def value_of(text):
    return yaml12.parse(text, "x.yaml")[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), ("-2.5e+4", -2.5e4), (".5", 0.5), ("3.", 3.0), ("1.0", 1.0), (".inf", math.inf)],
)
def test_numbers_with_an_exponent_are_floats(text, value):
    assert value_of(text) == value
    assert isinstance(value_of(text), float)


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("0x1f", 31), ("0o17", 15), ("-3", -3), ("+3", 3)])
def test_integers_are_decimal_unless_they_say_otherwise(text, value):
    assert value_of(text) == value


@pytest.mark.parametrize("text", ["no", "yes", "on", "off", "1:30", "2024-01-02", "1_000", "e5", "."])
def test_words_of_old_yaml_stay_words(text):
    assert value_of(text) == text


def test_booleans_and_null():
    assert value_of("[true, False, null, ~, ]") == [True, False, None, None]
    assert value_of("a:") == {"a": None}


def test_every_key_has_its_line():
    _, lines = yaml12.parse("a: 1\nb:\n  c: 2\n  d:\n    - {e: 3}\n    - 4\n", "x.yaml")
    assert lines[("a",)] == 1
    assert lines[("b", "c")] == 3
    assert lines[("b", "d", 0, "e")] == 5
    assert lines[("b", "d", 1)] == 6


def test_anchors_and_merge_keys_work():
    assert value_of("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}") == {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}


def test_duplicate_key_names_both_lines():
    with pytest.raises(UserError, match=r"x\.yaml, line 3, column 1: key a stands here a second time, first in line 1"):
        value_of("a: 1\nb: 2\na: 3\n")


def test_duplicate_key_in_a_nested_mapping_is_refused():
    with pytest.raises(UserError, match="key p"):
        value_of("a: {p: 1, p: 1}")


def test_syntax_error_has_line_and_column():
    with pytest.raises(UserError, match=r"x\.yaml, line 2, column \d+"):
        value_of("a: [1, 2\nb: 3\n")


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.getcwd []", "a: !thing 3", "a: \x00", "1: 2", "a: 1\n---\nb: 2"]
)
def test_what_is_no_plain_yaml_is_refused(text):
    with pytest.raises(UserError):
        value_of(text)


def test_alias_of_its_own_parent_is_refused():
    with pytest.raises(UserError, match="alias"):
        value_of("a: &x [1, *x]")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(PLAIN)
def test_dump_is_read_back_as_the_same_value(value):
    assert value_of(yaml12.dump(value)) == value


@pytest.mark.parametrize("word", ["1e-3", "no", "010", "null", "true", "0o7", "<<", "~", "2024-01-02", "1_0", ""])
def test_dump_quotes_words_that_look_like_something_else(word):
    assert value_of(yaml12.dump({"a": word})) == {"a": word}


@pytest.mark.parametrize("tag", ["timestamp 2020-01-01", "binary aGk=", "set {a, b}", "python/object:x.y []"])
def test_types_that_json_has_not_are_refused(tag):
    with pytest.raises(UserError, match=r"x\.yaml, line 1, column 4: could not determine a constructor"):
        value_of(f"a: !!{tag}")


@pytest.mark.parametrize("text", ["9" * 5000, "!!int word", "!!float word", "!!bool word", r'"\uD800"'])
def test_a_value_that_cannot_be_made_is_refused(text):
    with pytest.raises(UserError, match=r"x\.yaml, line 1, column 4: .{1,60} cannot be read as (int|float|bool|str)"):
        value_of(f"a: {text}")


def test_endless_nesting_is_refused():
    with pytest.raises(UserError, match=r"x\.yaml: .* nested too deeply"):
        value_of("a: " + "[" * 3000 + "]" * 3000)
