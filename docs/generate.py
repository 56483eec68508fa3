"""Writes docs/reference.md from the code: every setting of specs, families, datasets and the service, said once."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from search_spaces import studies
from service.plan import Objective, Resources, Search, Stop
from service.references import MOST_NETWORKS, MOST_PARTS
from service.settings import Settings
from service.spec import MAX_SPACE_VALUES, MAX_VALUES
from service.spec_reader import MAX_GRID
from service.warm_start import LEARNING
from trainables.config import Config
from trainables.data.datasets import DATASETS
from trainables.families import FAMILIES
from trainables.reported import REPORTED
from trainables.train_config import CHANGEABLE
from trainables.trial import TrainConfig

TARGET = Path(__file__).with_name("reference.md")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


OPENING = """# Reference

Made from the code by `make docs`. A spec is checked whole when it is submitted: whatever breaks a rule is
answered with its place, the rule and the value.

## A sweep spec

YAML in a file, the same thing as JSON over HTTP. `name`, `family` and `data` are required.

```yaml
name: nrn18-on-digits             # of the sweep and of its model: a-z, 0-9, dots, dashes and underscores
family: narrow_resnet
data: {name: digits, image_size: 32}
fixed: {model.channels: [16, 32, 32, 32], train.max_epochs: 20}    # settings that all trials share
space:                            # what varies; left out: the family's default space
  train.learning_rate: {kind: float, low: 1e-4, high: 2e-2, log: true}
  train.batch_size: {kind: choice, values: [64, 196, 512]}
  train.optimizer: {kind: choice, values: [adam, sgd]}
  train.momentum: {kind: float, low: 0.5, high: 0.99, when: {train.optimizer: sgd}}
search: {sampler: tpe, trials: 40, seed: 0}
stop: {pruner: asha, patience: 7, time_budget: 2h}
objectives: [{metric: validation/accuracy, mode: max}]
resources: {cpus: 1, gpus: 0.25}
```

Settings have dotted names: `model.` for the family's, `train.` for training, `data.` for the dataset's.

A parameter is a `float` (`low`, `high`, `log`, `step`), an `int` (the same) or a `choice` (`values`, any JSON, lists
too). With `when: {other: value}` it is there only where the other parameters have these values. A list means any of its
values, unless the other parameter can be that list itself.

A file may also have a `scale`: a JSON merge patch (RFC 7386) that cuts the rest down to a small machine, such as
`scale: {data: {train: 48}, search: {trials: 2}}`. `sweepserve submit` and `validate` apply it with `--scaled` and leave
it out without. Over HTTP `{"study": NAME, "scaled": true}` applies that of a packaged study, and a spec has none.
"""
RULES = f"""Rules between settings:

- A spec has at most {MAX_VALUES:,} values, {MAX_SPACE_VALUES:,} of them in its space.
  A grid has at most {MAX_GRID:,} points.
- Corners of the space and points inside it are tried, and each must be a legal trial. Their networks are built without
  weights: at most {MOST_NETWORKS} that differ, of {MOST_PARTS:,} modules and weights in all.
- Nothing is set in two places, and no group of settings both as a whole and in part.
- An objective's `mode` is the direction in which its metric is better. The first objective is no model's size.
- `cma-es` takes numbers without conditions, two or more of which vary, and one objective; `gp` no conditions and one
  objective; `grid` nothing continuous, and no `enqueue`. `warm_start` takes {_listed(LEARNING)}.
- `pbt` takes the samplers random, quasi-random and grid, two or more trials, one objective and `stop.pruner: none`; no
  repeats, warm start, patience, time budget or conditions. Its space is of
  {_listed(CHANGEABLE)}.
- `extend` gives more than there is: no trials to a population, and time only to a sweep with a time budget.
"""


def reference() -> str:
    """The whole page."""
    sections = [
        OPENING,
        RULES,
        *(_section(f"### `{name}`", kind) for name, kind in _plan().items()),
        f"### Packaged studies\n\n`sweepserve submit NAME` takes these: {_listed(studies())}.\n",
        "## Training: `train.`\n",
        _table(TrainConfig),
        "## What a trial reports\n",
        _reported(),
        "## Model families: `model.`\n",
        *(_section(f"### `{name}`", kind) for name, kind in sorted(FAMILIES.items())),
        "## Datasets: `data.`\n",
        *(_section(f"### `{name}`", kind) for name, kind in sorted(DATASETS.items())),
        "## The service: environment variables\n",
        _settings(),
    ]
    return "\n".join(sections)


def _plan() -> Mapping[str, type[Config]]:
    return {"search": Search, "stop": Stop, "objectives": Objective, "resources": Resources}


def _section(title: str, kind: type[Config]) -> str:
    return f"{title}\n\n{inspect.getdoc(kind)}\n\n{_table(kind)}"


def _table(kind: type[Config]) -> str:
    rows = ["| setting | default | legal | what |", "|---|---|---|---|"]
    for name, field in _fields(kind.json_schema()):
        default = f"`{json.dumps(field['default'])}`" if "default" in field else "required"
        rows.append(f"| `{name}` | {default} | {_legal(field)} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every setting of an object by its dotted name; a group of settings is listed by what is in it."""
    for name, field in schema["properties"].items():
        alternatives = field.get("anyOf", [field])
        groups = [one for one in alternatives if "properties" in one]
        if len(alternatives) > len(groups):
            yield prefix + name, field
        for group in groups:
            yield from _fields(group, f"{prefix}{name}.")


def _legal(schema: Mapping[str, Any]) -> str:
    """A JSON Schema's rule in words."""
    if "anyOf" in schema:
        return " or ".join(map(_legal, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_legal(schema['prefixItems'][0])}"
    if schema.get("type") == "array":
        return f"list: {_legal(schema['items'])}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"mapping: {_legal(inner)}" if isinstance(inner, Mapping) else "mapping"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = " and ".join(f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)
    return f"{schema.get('type', 'any value')} {bounds}".strip()


def _reported() -> str:
    rows = [f"| `{name}` | {what} |" for name, what in REPORTED.items()]
    told = "After each step, beside its task's measures (`train/loss`, `validation/accuracy`, ...), every trial tells:"
    return "\n".join([told, "", "| metric | what |", "|---|---|", *rows]) + "\n"


def _settings() -> str:
    rows = ["| variable | default | what |", "|---|---|---|"]
    described = dict(_attribute_docstrings(Settings))
    for field in dataclasses.fields(Settings):
        default = "`~/.sweepserve`" if field.default is dataclasses.MISSING else f"`{field.default}`"
        shown = default if default != "``" else "none"
        rows.append(f"| `SWEEPSERVE_{field.name.upper()}` | {shown} | {described.get(field.name, '')} |")
    return "\n".join(rows) + "\n"


def _attribute_docstrings(kind: type) -> Iterator[tuple[str, str]]:
    """The text under each field of a class, which Python itself does not keep."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    for before, after in itertools.pairwise(body):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            yield before.target.id, " ".join(str(after.value.value).split())


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    sys.stdout.write(f"wrote {TARGET.name}\n")
