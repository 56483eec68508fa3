"""YAML as people mean it: the core schema of YAML 1.2, in which 1e-3 is a number and `no` is a text."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


def read_yaml(text: str) -> Any:
    """The document in a YAML text, as plain data.

    Raises:
        ValueError: the text is not YAML, has a key twice in one mapping, or refers to another part of itself; the
            message names the line.
    """
    try:
        return yaml.load(text, Loader=_Reader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"this is no YAML text: {error}") from error


def write_yaml(values: Any) -> str:
    """Plain data as a YAML text that `read_yaml` reads back; keys keep their order."""
    return yaml.dump(values, Dumper=_Writer, sort_keys=False)


class _Reader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            message = f"need each value written out where it stands, got the alias *{event.anchor}"
            raise yaml.constructor.ConstructorError(None, None, message, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for name in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if name.value in seen:
                message = f"the key {name.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, message, name.start_mark)
            seen.add(name.value)
        return super().construct_mapping(node, deep)


class _Writer(yaml.SafeDumper):
    # It keeps its YAML 1.1 rules too, so that a text like `no` is quoted and every reader takes it for a text.
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _str(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    # JSON is YAML, but writes a rare character as the escapes of two surrogates, which make one only together.
    return str(loader.construct_scalar(node)).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Reader, _Writer):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
_Reader.add_constructor("tag:yaml.org,2002:str", _str)
_Reader.add_constructor("tag:yaml.org,2002:int", _int)
_Reader.add_constructor("tag:yaml.org,2002:float", _float)
