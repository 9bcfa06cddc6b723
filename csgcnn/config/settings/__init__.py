"""Every key of a run, once: type, default, unit, range, help and effect, a module per section."""

from csgcnn.config.settings.setting import Setting

__all__ = ["Setting"]
