"""The settings classes as schemas of Hydra, which gives keys their types and defaults."""

from hydra.core.config_store import ConfigStore

from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.run import TaskSettings
from csgcnn.config.settings.trainer import TrainerSettings


def register_schemas() -> None:
    """Register the schemas at the root of Hydra's store, so that no group lists them."""
    store = ConfigStore.instance().store
    for command, settings in COMMANDS.items():
        store(f"{command}_schema", settings)
    # Sections by themselves: config.yaml of a run lists them in its defaults.
    store("trainer_schema", TrainerSettings)
    store("graph_schema", GraphSettings)
    store("dataset_schema", DatasetSettings)
    store("task_schema", TaskSettings)
