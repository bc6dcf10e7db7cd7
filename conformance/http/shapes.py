"""The shape of a JSON value: which keys there are and of which types, and whether another value fits.

A shape is JSON itself, so that a record can be read and compared by eye:

    "number" "string" "bool" "null"     a value of this type
    "number|null"                       of one of these types
    {"name": …, "idle_since?": …}       an object; with a question mark the key is not always there
    [shape]                             a list of one element or more, which all have this shape
    []                                  a list that was empty: any list fits, unless another shape is possible as well
    {"one of": [shape, …]}              where an object or a list is one of several possibilities

A value fits a shape if each key that is always there is in it, each of its values with a key of the shape fits what
the shape says of that key, and each list that had elements has some. Further keys are allowed.
"""
from __future__ import annotations

from typing import Any, Iterator

ONE_OF = "one of"
Shape = Any


def shape_of(value: Any) -> Shape:
    """Return the shape of one value."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [merged_all([shape_of(inner) for inner in value])] if value else []
    return type_name(value)


def type_name(value: Any) -> str:
    """Return the name of a JSON type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list) else "object"


def merged_all(shapes: list[Shape]) -> Shape:
    """Return a shape that all values fit which fit one of these."""
    found = shapes[0]
    for shape in shapes[1:]:
        found = merged(found, shape)
    return found


def merged(one: Shape, other: Shape) -> Shape:
    """Return a shape that a value fits if it fits one of the two."""
    alternatives: list[Shape] = []
    for shape in [*alternatives_of(one), *alternatives_of(other)]:
        for index, present in enumerate(alternatives):
            if not isinstance(shape, str) and kind_of(present) == kind_of(shape):
                alternatives[index] = merged_alike(present, shape)
                break
        else:
            if shape not in alternatives:
                alternatives.append(shape)
    simple = sorted(shape for shape in alternatives if isinstance(shape, str))
    others = [shape for shape in alternatives if not isinstance(shape, str)]
    together = (["|".join(simple)] if simple else []) + others
    return together[0] if len(together) == 1 else {ONE_OF: together}


def alternatives_of(shape: Shape) -> list[Shape]:
    """Return a shape's possibilities one by one."""
    if isinstance(shape, str):
        return list(shape.split("|"))
    if isinstance(shape, dict) and list(shape) == [ONE_OF]:
        return [each for inner in shape[ONE_OF] for each in alternatives_of(inner)]
    return [shape]


def merged_alike(one: Shape, other: Shape) -> Shape:
    """Merge two shapes of objects or two of lists."""
    if isinstance(one, list):
        return [merged_all([*one, *other])] if one else []
    keys, other_keys = keys_of(one), keys_of(other)
    found = {}
    for key in [*keys, *(key for key in other_keys if key not in keys)]:
        is_optional = any(key not in some or some[key][1] for some in (keys, other_keys))
        shapes = [some[key][0] for some in (keys, other_keys) if key in some]
        found[f"{key}?" if is_optional else key] = merged_all(shapes)
    return found


def keys_of(shape: dict[str, Shape]) -> dict[str, tuple[Shape, bool]]:
    """Return each key of an object's shape without its question mark: the value's shape, and whether it is optional."""
    return {key.removesuffix("?"): (inner, key.endswith("?")) for key, inner in shape.items()}


def misfits(shape: Shape, value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield where a value does not fit a shape, and in which way. Elements of lists are called *."""
    possible = alternatives_of(shape)
    matching = [each for each in possible if type_of_shape(each) == type_name(value)]
    if not matching:
        yield where, f"must be {described(possible)}, not {type_name(value)}"
    elif isinstance(value, dict):
        yield from misfits_of_object(matching[0], value, where)
    elif isinstance(value, list):
        if not value and [] not in matching:
            yield where, "must not be an empty list"
        elements = [shape for possibility in matching for shape in possibility]
        seen = {misfit for shape in elements for inner in value for misfit in misfits(shape, inner, joined(where, "*"))}
        yield from sorted(seen)


def misfits_of_object(shape: dict[str, Shape], value: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield the misfits of an object."""
    for key, (inner, is_optional) in keys_of(shape).items():
        if key in value:
            yield from misfits(inner, value[key], joined(where, key))
        elif not is_optional:
            yield joined(where, key), "is missing"


def kind_of(shape: Shape) -> str:
    """Return what two shapes must have in common to be merged key by key."""
    return "empty list" if shape == [] else type_of_shape(shape)


def type_of_shape(shape: Shape) -> str:
    """Return the JSON type that values of one possibility have."""
    return shape if isinstance(shape, str) else type_name(shape)


def described(possible: list[Shape]) -> str:
    """Return the types of possibilities for a message."""
    return " or ".join(type_of_shape(each) for each in possible)


def joined(where: str, key: str) -> str:
    """Return a path one step longer."""
    return f"{where}.{key}" if where else key
