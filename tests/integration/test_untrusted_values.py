"""Untrusted checkpoints: a value out of range is refused, without taking memory."""

import json
import math
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from csgcnn import load
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import save_checkpoint

STORED = Path(__file__).parents[1] / "runs" / "format_1.ckpt"


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return torch.load(STORED, weights_only=True)


def with_value(content: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed = deepcopy(content)
    *sections, name = key.split(".")
    node = changed["config"]
    for section in sections:
        node = node.setdefault(section, {})
    node[name] = value
    return changed


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.hidden", 10**9, "model.hidden=1000000000: expected an integer from 1 to 10000"),
        ("model.n_convolutions", 10**9, "model.n_convolutions=1000000000"),
        ("graph.cutoff", math.nan, "graph.cutoff=nan"),
        ("graph.cutoff", "eight", "graph.cutoff=eight"),
        ("graph.compress", "\x1b[31mred\n", "texts and numbers"),
        ("graph.shells", ["complete"], "shells"),
        ("graph", [1, 2], ""),
        ("model", "csgcnn", ""),
        ("model.norm", 7, ""),
        ("model.activation", {"_target_": "os.system"}, "refused"),
        ("head", [1, 2], ""),
        ("head", {"_target_": "os.system"}, "refused"),
        ("node_features", {}, ""),
        ("node_features.learned.dim", 5, "size mismatch"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_checkpoint_with_such_a_value_is_refused_in_a_line(
    key: str, value: Any, expected: str, content: dict[str, Any], tmp_path: Path
) -> None:
    save_checkpoint(with_value(content, key, value), tmp_path / "a.ckpt")
    with pytest.raises(UserError) as caught:
        load(tmp_path / "a.ckpt")
    assert str(tmp_path / "a.ckpt") in str(caught.value)
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


# The largest networks that the bounds allow: 100 layers of 10,000 by 10,000 are 40 GB.
LARGEST = """
import json, resource, sys
from csgcnn import load
from csgcnn.errors import UserError
load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        load(path)
    except UserError as error:
        print(json.dumps([str(error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.mark.slow
def test_a_network_that_the_weights_are_not_of_takes_no_memory(
    content: dict[str, Any], tmp_path: Path
) -> None:
    changes = {
        "wide": {"hidden": 10_000, "n_convolutions": 100},
        "deep": {"head_hidden": 10_000, "n_head_layers": 100},
    }
    paths = [tmp_path / f"{name}.ckpt" for name in changes]
    for path, change in zip(paths, changes.values(), strict=True):
        save_checkpoint(
            content
            | {"config": content["config"] | {"model": content["config"]["model"] | change}},
            path,
        )
    words = [sys.executable, "-c", LARGEST, str(STORED), *map(str, paths)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(paths), done.stderr
    for message, kilobytes in answers:
        assert "its weights do not fit its own configuration" in message
        assert len(message) < 500
        assert kilobytes < 200_000
