"""Site features of potentials: cached, merged, refused where they cannot be had."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coordination import Coordination
from pymatgen.core import Structure

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graph_builder import GraphPlan, build_graphs
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.site_features.cache import SiteFeatureCache, crystal_key
from csgcnn.crystals.site_features.compute import site_features
from csgcnn.crystals.site_features.potential import (
    pinned,
    register_potential,
    site_columns,
)
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.errors import ConfigError, UserError

SETTINGS = GraphSettings(site_features=["coordination"])


def test_a_name_is_pinned_to_the_installed_version_and_weights() -> None:
    (name,) = pinned(["coordination"])
    assert name == f"coordination {np.__version__} {Coordination.weights_hash[:12]}"
    assert pinned([name]) == [name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("coordnation", "there is no potential coordnation; did you mean coordination"),
        ("/home/me/weights.pth", "Weights are loaded from installed packages only"),
        ("coordination 0.1 e3b0c44298fc", r"coordination 0\.1 .*is installed: pip install numpy"),
    ],
)
def test_other_potentials_versions_and_weights_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        pinned([name])


def test_weights_of_another_hash_are_refused() -> None:
    class Changed(Coordination):
        name = "changed"
        weights_hash = "0" * 64

    register_potential(Changed)
    with pytest.raises(UserError, match=r"the weights of changed in numpy .* are not those"):
        pinned(["changed"])


def test_a_missing_package_is_answered_with_the_command_that_installs_it() -> None:
    class Absent(Coordination):
        name = "absent"
        package = "package-that-nobody-has"
        install = "csgcnn[absent]"

    register_potential(Absent)
    with pytest.raises(ConfigError, match=r"pip install 'csgcnn\[absent\]'"):
        pinned(["absent"])


def test_layers_are_chosen_and_those_that_do_not_exist_are_refused(
    ideal_crystals: dict[str, Crystal],
) -> None:
    crystal = ideal_crystals["perovskite"]
    (both,) = site_features([crystal], SETTINGS)
    (second,) = site_features([crystal], replace(SETTINGS, site_layers=[2]))
    assert site_columns(SETTINGS) == {"coordination": slice(0, 6)}
    np.testing.assert_array_equal(second, both[:, 3:])
    with pytest.raises(ConfigError, match="coordination has the layers 1 to 2, and no layer 3"):
        site_features([crystal], replace(SETTINGS, site_layers=[1, 3]))


def test_known_features_are_not_computed_again(
    tmp_path: Path, ideal_crystals: dict[str, Crystal]
) -> None:
    crystals = [ideal_crystals["perovskite"], ideal_crystals["rock_salt"]]
    first = site_features(crystals, SETTINGS, tmp_path)
    Coordination.computed.clear()
    again = site_features(crystals, replace(SETTINGS, cutoff=5.0), tmp_path)
    assert not Coordination.computed
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    stretched = crystals[0]._replace(lattice=1.01 * crystals[0].lattice)
    site_features([stretched], SETTINGS, tmp_path)
    assert Coordination.computed == [5]


def test_a_cache_that_cannot_be_used_only_costs_time(
    tmp_path: Path, ideal_crystals: dict[str, Crystal]
) -> None:
    crystal = ideal_crystals["rock_salt"]
    cache = SiteFeatureCache(tmp_path, pinned(["coordination"])[0])
    cache.path.write_bytes(b"no database" * 100)
    expected = site_features([crystal], SETTINGS)
    np.testing.assert_array_equal(site_features([crystal], SETTINGS, tmp_path), expected)
    assert cache.read([crystal_key(crystal)]) == {}


@pytest.mark.parametrize("change", SAME_CRYSTAL)
def test_the_features_of_a_node_do_not_depend_on_the_description(
    change: str, ideal_crystals: dict[str, Crystal]
) -> None:
    rng = np.random.default_rng(0)
    for crystal in ideal_crystals.values():
        if crystal.atomic_number.max() > 83:
            continue
        one = connect([crystal], SETTINGS)
        other = connect([SAME_CRYSTAL[change](crystal, rng)], SETTINGS)
        values = [
            sorted(zip(graphs.atomic_number, graphs.site_features.tolist(), strict=True))
            for graphs in (one, other)
        ]
        for (z, own), (z_other, theirs) in zip(*values, strict=True):
            assert z == z_other
            np.testing.assert_allclose(own, theirs, rtol=2e-3, atol=1e-4)


def test_merged_sites_share_their_mean(ideal_crystals: dict[str, Crystal]) -> None:
    crystal = ideal_crystals["rock_salt_conventional"]
    merged = connect([crystal], SETTINGS)
    full = connect([crystal], replace(SETTINGS, compress=False))
    assert len(merged.site_features) == 2
    assert len(full.site_features) == 8
    np.testing.assert_allclose(
        merged.site_features[merged.site_node], full.site_features, rtol=1e-3
    )


def test_crystals_without_features_are_rejected_with_the_reason(
    ideal_structures: dict[str, Structure],
) -> None:
    names = ["simple_cubic", "rock_salt"]
    records = [Record(name, ideal_structures[name], {}) for name in names]
    (chunk,) = build_graphs(records, GraphPlan(SETTINGS, workers=1))
    assert [record.id for record in chunk.records] == ["rock_salt"]
    assert chunk.rejected == [
        ("simple_cubic", "coordination does not know Po, so it has no site features")
    ]


def test_worker_processes_compute_the_same(
    tmp_path: Path, ideal_structures: dict[str, Structure]
) -> None:
    records = [Record(name, one, {}) for name, one in ideal_structures.items()]

    def features(workers: int) -> list[np.ndarray]:
        cache = tmp_path / str(workers)
        plan = GraphPlan(SETTINGS, workers, site_cache=cache, chunk_size=2, serial_seconds=0.0)
        chunks = build_graphs(records, plan)
        return [chunk.graphs.site_features for chunk in chunks if chunk.graphs is not None]

    for one, other in zip(features(1), features(2), strict=True):
        np.testing.assert_array_equal(one, other)
