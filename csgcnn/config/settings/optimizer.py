"""Keys of the group `optimizer`, whose classes belong to torch and carry no descriptions."""

from csgcnn.config.settings.setting import MISSING, Key, Setting

_KEYS = (
    Key("lr", "float", MISSING, Setting("Learning rate, the peak of the schedule.", above=0)),
    Key("weight_decay", "float", 0.0, Setting("Decay of the weights.", at_least=0)),
    Key("momentum", "float", 0.0, Setting("Momentum.", at_least=0, below=1)),
    Key(
        "fused", "bool", False, Setting("Update all parameters in one kernel.", effect="execution")
    ),
)


def optimizer_keys(name: str) -> dict[str, Key]:
    """Return the keys of a class of `torch.optim`."""
    has_momentum = not name.startswith("Adam")
    return {key.name: key for key in _KEYS if has_momentum or key.name != "momentum"}
