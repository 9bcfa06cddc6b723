from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from csgcnn.errors import ConfigError
from csgcnn.evaluation.embedding_map import check_method, chemistry, map_coordinates, write_map


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_coordinates_keep_two_clusters_apart(method: str) -> None:
    noise = np.random.default_rng(0).normal(size=(20, 6)).astype("f4")
    is_second = np.arange(20) % 2 == 1
    found = map_coordinates(noise + 50 * is_second[:, None], method)
    assert found.shape == (20, 2)
    first, second = found[~is_second], found[is_second]
    width = max(np.ptp(cluster, axis=0).max() for cluster in (first, second))
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > width / 2
    np.testing.assert_array_equal(found, map_coordinates(noise + 50 * is_second[:, None], method))


def test_the_chemistry_is_the_most_electronegative_element() -> None:
    assert chemistry([{12, 8}, {31, 33}, {11, 9, 8}]) == ["O", "As", "F"]


@pytest.mark.skipif(find_spec("umap") is not None, reason="umap-learn is installed")
def test_a_method_without_its_package_names_the_extra() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'csgcnn\[umap\]'"):
        check_method("umap")


def test_a_map_has_a_trace_for_numbers_and_for_each_category(tmp_path: Path) -> None:
    kinds = [f"kind {i}" for i in range(12)]
    colorings = {"gap": [1.0, float("nan"), *range(10)], "kind": kinds}
    write_map(tmp_path / "a.html", np.zeros((12, 2)), kinds, colorings, "A map")
    page = (tmp_path / "a.html").read_text()
    names = [f'"name":"{name}"' for name in (*kinds[:10], "other")]
    assert all(name in page for name in names)
    assert '"name":"kind 11"' not in page
