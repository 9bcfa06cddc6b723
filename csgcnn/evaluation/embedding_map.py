"""Maps of crystals: two coordinates of their vectors, drawn on a page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.elements import SYMBOLS, properties
from csgcnn.errors import ConfigError
from csgcnn.io import write_text

Array = NDArray[Any]
NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
# Package and extra of each method.
PACKAGES = {"pca": None, "tsne": ("sklearn", "kernel"), "umap": ("umap", "umap")}
SEED = 0
# Categories with a color of their own.
MOST_CATEGORIES = 10
OTHER, UNKNOWN = "other", "unknown"


def check_method(method: str) -> None:
    """Check that the package of a method is installed.

    Raises:
        ConfigError: It is not.
    """
    needed = PACKAGES[method]
    if needed and find_spec(needed[0]) is None:
        raise ConfigError(
            f"map={method} needs {needed[0]}: pip install 'csgcnn[{needed[1]}]', or use map=pca"
        )


def map_coordinates(vectors: Array, method: str) -> Array:
    """Return two coordinates of each crystal.

    Args:
        vectors: [n_crystals, n_features], at least three.
        method: pca: the two directions of largest variance; tsne (van der Maaten & Hinton, JMLR 9,
            2579, 2008) and umap (McInnes, Healy & Melville, arXiv:1802.03426) keep neighbors
            together.

    Returns:
        [n_crystals, 2].
    """
    n = len(vectors)
    centered = vectors - vectors.mean(0)
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (n - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(centered)
    if method == "umap":
        import umap

        n_neighbors = min(15, n - 1)
        init = "spectral" if n > 3 + n_neighbors else "random"
        reducer = umap.UMAP(n_neighbors=n_neighbors, init=init, random_state=SEED, n_jobs=1)
        return reducer.fit_transform(centered)
    _, values, directions = np.linalg.svd(centered, full_matrices=False)
    return centered @ directions[:2].T if len(values) > 1 else np.pad(centered, ((0, 0), (0, 1)))


def chemistry(elements: Sequence[set[int]]) -> list[str]:
    """Return the most electronegative element of each crystal, which names its class of compounds.

    The elements are given by their atomic numbers.
    """
    electronegativity = properties()["electronegativity [Pauling]"]
    return [SYMBOLS[max(of_crystal, key=lambda z: electronegativity[z])] for of_crystal in elements]


def write_map(
    path: Path,
    coordinates: Array,
    texts: Sequence[str],
    colorings: Mapping[str, Sequence[Any]],
    title: str,
) -> None:
    """Write a map as one HTML file that loads nothing; a menu chooses what colors the points.

    Args:
        path: The file, which is replaced.
        coordinates: [n_crystals, 2].
        texts: Text of each crystal that appears under the pointer.
        colorings: Numbers, or names of categories, of each crystal by name; NaN where unknown.
        title: Title of the page.
    """
    from plotly import graph_objects

    traces, n_of = list[Any](), list[int]()
    for name, values in colorings.items():
        found = [*_traces(name, values, coordinates, texts)]
        traces += found
        n_of.append(len(found))
    owner = np.repeat(np.arange(len(n_of)), n_of)
    for trace, own in zip(traces, owner, strict=True):
        trace.visible = bool(own == 0)
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": (owner == i).tolist()}]}
        for i, name in enumerate(colorings)
    ]
    figure = graph_objects.Figure(traces)
    figure.update_layout(
        template="plotly_white",
        title=title,
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.08}],
        legend={"itemsizing": "constant"},
    )
    figure.update_yaxes(scaleanchor="x")
    write_text(path, figure.to_html(include_plotlyjs=True, config={"displaylogo": False}))


def _traces(
    name: str, values: Sequence[Any], coordinates: Array, texts: Sequence[str]
) -> list[Any]:
    """Return one trace of numbers, or a trace for each category."""
    from plotly import graph_objects

    if not isinstance(values[0], str):
        bar = {"title": {"text": name, "side": "right"}}
        marker = {"colorscale": "Viridis", "colorbar": bar, "size": 6}
        numbers = np.array(values, float)
        rows = {"": np.isfinite(numbers)}
        markers = {"": {**marker, "color": numbers[rows[""]]}}
    else:
        named = [value or UNKNOWN for value in values]
        most = [category for category, _ in Counter(named).most_common(MOST_CATEGORIES)]
        labels = np.array([value if value in most else OTHER for value in named])
        rows = {label: labels == label for label in [*most, *{OTHER} & {*labels.tolist()}]}
        markers = {label: {"size": 6} for label in rows}
    return [
        graph_objects.Scattergl(
            x=coordinates[is_own, 0],
            y=coordinates[is_own, 1],
            mode="markers",
            marker=markers[label],
            name=label,
            showlegend=label != "",
            text=[text for text, own in zip(texts, is_own, strict=True) if own],
            hoverinfo="text",
        )
        for label, is_own in rows.items()
    ]
