"""sonode/files/yaml_keys.py: keys that stand twice."""

import pytest
import yaml

from sonode.files.yaml_keys import DuplicateKeyError, refuse_duplicate_keys


@pytest.mark.parametrize(
    ("text", "key", "line", "first"),
    [
        ("a: 1\nb: 2\na: 1\n", "a", 3, 1),
        ("nodes:\n  - name: x\n    url: y\n    name: z\n", "name", 4, 2),
        ("{a: 1, b: {c: 1, c: 2}}", "c", 1, 1),
        ('a: 1\n"a": 2\n', "a", 2, 1),
        ("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\n  a: 4\n", "a", 5, 4),
        ("a: 1\n---\nb: 1\nb: 2\n", "b", 4, 3),
    ],
)
def test_a_key_twice_is_refused_with_both_lines(text, key, line, first):
    with pytest.raises(DuplicateKeyError) as caught:
        refuse_duplicate_keys(text)
    assert caught.value.problem == f"line {line}: key `{key}` is already in line {first}"


@pytest.mark.parametrize(
    "text", ["", "a: 1\nb: {a: 1}\n", "- a: 1\n- a: 2\n", "x: &x {a: 1}\ny: {<<: *x, a: 2}\n"]
)
def test_equal_keys_of_different_mappings_are_taken(text):
    refuse_duplicate_keys(text)


def test_what_is_no_yaml_is_that():
    with pytest.raises(yaml.YAMLError):
        refuse_duplicate_keys("a: [")
