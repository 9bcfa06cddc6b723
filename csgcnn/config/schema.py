"""The settings classes as schemas of Hydra, which gives keys their types and defaults."""

from hydra.core.config_store import ConfigStore

from csgcnn.config.settings.commands import COMMANDS


def register_schemas() -> None:
    """Register the schemas at the root of Hydra's store, so that no group lists them."""
    store = ConfigStore.instance().store
    for command, settings in COMMANDS.items():
        store(f"{command}_schema", settings)
