"""Test the settings that Python passes to a command."""

from csgcnn.commands.arguments import compose_settings


def test_entries_of_a_dict_are_keys_of_their_own() -> None:
    cfg = compose_settings(
        "train",
        {
            "dataset.derived.log_k": "log10(k) if k > 0 else 0",
            "dataset.units.outputs.gap": "eV",
            "dataset.units": {"k": "GPa"},
            "dataset.transform.k": "log10",
        },
    )
    assert cfg.dataset.derived == {"log_k": "log10(k) if k > 0 else 0"}
    assert cfg.dataset.units["outputs.gap"] == "eV"
    assert cfg.dataset.units["k"] == "GPa"
    assert cfg.dataset.transform == {"k": "log10"}
