"""A tree of plain data comes back from its JSON text and its tensors, equal to the bit."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csgcnn.runs.tensor_tree import join_tree, split_tree


def bits(tree: Any) -> Any:
    """The tree with types and bit patterns, which compare as equal where they are the same."""
    if isinstance(tree, Tensor):
        content = tree.contiguous().reshape(-1).view(torch.uint8).tolist() if tree.numel() else []
        return ("tensor", str(tree.dtype), tuple(tree.shape), content)
    if isinstance(tree, dict):
        return ("dict", [(bits(key), bits(item)) for key, item in tree.items()])
    if isinstance(tree, list | tuple):
        return (type(tree).__name__, [bits(item) for item in tree])
    if isinstance(tree, float):
        return ("float", "nan" if math.isnan(tree) else tree.hex())
    return (type(tree).__name__, tree)


def round_trip(tree: Any, long: int = 4) -> Any:
    return join_tree(*split_tree(tree, long))


BASE = torch.arange(12.0)
TREES: dict[str, Any] = {
    "numbers": [0, -1, 2**70, 0.1, -0.0, 1e300, 5e-324, 1e16, True, False, None],
    "numbers that are not finite": [math.nan, math.inf, -math.inf, {"a": (math.nan,)}],
    "texts": ["", "Å × σ", "a\nb\0c", "\ud800", "$tensor"],
    "a long list of texts": ["mp-1", "Å", "", "a\nb", "x" * 1000],
    "a long list of texts with null characters": ["a\0b", "", "\0", "c", "d"],
    "a long list of empty texts": [""] * 10,
    "a long list with a number": ["a", "b", 1, "c", "d"],
    "empty containers": [{}, [], (), {"a": {}, "b": [], "c": ()}],
    "integers for keys": {"state": {0: {"step": torch.tensor(20.0)}, -3: [1]}},
    "mixed keys": {1: "int", "1": "str", False: 2, 0.5: "float"},
    "keys like tags": {"$tensor": "a", "$": 1, "b": {"$dict": [[1, 2]], "$tuple": 3}},
    "nested tuples": ((1, (2, [3, ()])), {"a": (4,)}),
    "dtypes": [
        torch.tensor([0, 1, 1]).to(dtype)
        for dtype in (
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
            *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        )
    ],
    "tensors that are not finite": torch.tensor([math.nan, -math.nan, math.inf, -0.0]),
    "scalars and empty tensors": [torch.tensor(3.5), torch.empty(0), torch.empty(3, 0)],
    "views": [BASE.view(3, 4).t(), BASE[2:9:3], BASE[:1].expand(5), BASE, BASE[3:]],
    "random state": torch.get_rng_state(),
    "names that collide": {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, "": torch.ones(2)},
}


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_comes_back_to_the_bit(kind: str) -> None:
    assert bits(round_trip(TREES[kind])) == bits(TREES[kind])


@pytest.mark.slow
@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda parts: (
            st.lists(parts)
            | st.tuples(parts, parts)
            | st.dictionaries(st.text() | st.integers(), parts)
        ),
        max_leaves=20,
    )
)
def test_any_plain_tree_comes_back(tree: Any) -> None:
    assert bits(round_trip(tree)) == bits(tree)


def test_a_state_of_an_optimizer_comes_back() -> None:
    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    for state in (optimizer.state_dict(), layer.state_dict()):
        assert bits(round_trip(state)) == bits(dict(state))


def test_a_tensor_that_occurs_twice_is_stored_once() -> None:
    text, tensors = split_tree({"best": BASE, "weights": {"a": BASE}, "part": BASE[:3]})
    assert list(tensors) == ["best", "part"]
    joined = join_tree(text, tensors)
    assert joined["weights"]["a"] is joined["best"]


def test_tensors_have_the_names_of_their_paths() -> None:
    text, tensors = split_tree(
        {"state_dict": {"embedding.weight": BASE}, "rng": [{"cpu": BASE + 1}]}
    )
    assert list(tensors) == ["state_dict.embedding.weight", "rng.0.cpu"]
    assert json.loads(text)["state_dict"] == {
        "embedding.weight": {"$tensor": "state_dict.embedding.weight"}
    }


@pytest.mark.parametrize("value", [{1, 2}, 1j, object(), torch.device("cpu"), b"bytes"])
def test_other_objects_are_refused_with_their_path(value: Any) -> None:
    with pytest.raises(TypeError, match=r"a\.1\.b: a checkpoint cannot hold"):
        split_tree({"a": [0, {"b": value}]})


@pytest.mark.parametrize(
    "text",
    [
        '{"$tensor":"b"}',
        '{"$tensor":["a"]}',
        '{"$tensor":"a","x":1}',
        '{"$strings":"number"}',
        '[{"$strings":"a"},{"$strings":"a"}]',
        '{"$tuple":1}',
        '{"$dict":1}',
        '{"$dict":[[1]]}',
        '{"$dict":[[[1],2]]}',
        '{"$dict":[[null,2]]}',
        '{"$float":"one"}',
        '{"$float":[]}',
        '{"$set":[1]}',
        '{"a":',
        "",
    ],
)
def test_a_damaged_text_is_an_error(text: str) -> None:
    tensors = {"a": torch.tensor([97], dtype=torch.uint8), "number": torch.ones(1)}
    with pytest.raises(ValueError, match=r"\S"):
        join_tree(text, tensors)
