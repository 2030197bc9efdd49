"""Nested records of arrays, numbers and strings in one npz file, to the same bits and without pickle.

A tree is made of mappings with string keys, lists, tuples, arrays, numbers, strings, booleans and None, as a substrate's
snapshot is. The states of rules are frozen dataclasses or named tuples: `flatten_record` makes trees of them and
`rebuild_record` makes them again after the pattern of a fresh one.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inmaterio.devices.validation import InputError

STRUCTURE = "structure"
"""Member of the npz file that holds the tree as JSON, with arrays by the name of their member."""


def save_tree(path: Path, tree: Any) -> None:
    """Write a tree: under another name first, then renamed into place, so that a kill never leaves half a file."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    structure = json.dumps(_pack(tree, arrays))
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **{STRUCTURE: np.array(structure)}, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_tree(path: Path) -> Any:
    """The tree that `save_tree` wrote.

    Raises
    ------
    InputError
        When the file is missing, truncated or not such a file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as members:  # numpy leaves a damaged file open
            return _unpack(json.loads(str(members[STRUCTURE][()])), members)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged or not a checkpoint: {error}") from None


def _pack(tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(tree, (np.ndarray, np.generic, complex)):
        name = f"array_{len(arrays)}"
        arrays[name] = np.asarray(tree)
        if arrays[name].dtype.hasobject:
            raise InputError(f"cannot keep an array of {arrays[name].dtype} in a checkpoint; expected numbers")
        return {"array": name, "scalar": not isinstance(tree, np.ndarray)}
    if isinstance(tree, Mapping):
        return {"map": [[key, _pack(value, arrays)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return {"list" if isinstance(tree, list) else "tuple": [_pack(value, arrays) for value in tree]}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"value": tree}
    raise InputError(
        f"cannot keep {type(tree).__name__} in a checkpoint; expected arrays, numbers, strings and mappings or lists of them"
    )


def _unpack(packed: Any, members: Mapping[str, Any]) -> Any:
    if "array" in packed:
        array = members[packed["array"]]
        return array[()] if packed["scalar"] else array
    if "map" in packed:
        return {key: _unpack(value, members) for key, value in packed["map"]}
    if "list" in packed:
        return [_unpack(value, members) for value in packed["list"]]
    if "tuple" in packed:
        return tuple(_unpack(value, members) for value in packed["tuple"])
    return packed["value"]


def flatten_record(record: Any) -> Any:
    """A tree of a frozen dataclass, a named tuple, or anything a tree may hold."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: flatten_record(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {key: flatten_record(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        items = [flatten_record(value) for value in record]
        return items if isinstance(record, list) else tuple(items)
    return record


def rebuild_record(pattern: Any, tree: Any) -> Any:
    """A record of the types of `pattern` (a fresh one) with the values of a tree made by `flatten_record`."""
    if dataclasses.is_dataclass(pattern) and not isinstance(pattern, type):
        return dataclasses.replace(
            pattern,
            **{
                field.name: rebuild_record(getattr(pattern, field.name), tree[field.name])
                for field in dataclasses.fields(pattern)
                if field.init
            },
        )
    if isinstance(pattern, Mapping) and isinstance(tree, Mapping):
        return {key: rebuild_record(pattern.get(key), value) for key, value in tree.items()}
    if isinstance(pattern, (list, tuple)) and isinstance(tree, (list, tuple)) and len(pattern) == len(tree):
        items = [rebuild_record(one, value) for one, value in zip(pattern, tree, strict=True)]
        if hasattr(pattern, "_fields"):
            return type(pattern)(*items)
        return items if isinstance(pattern, list) else tuple(items)
    return tree
