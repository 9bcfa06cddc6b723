"""Text of the user, such as units and names of columns, in the grammar of Hydra's overrides."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

PLAIN = re.compile(r"(?!(?i:true|false|null|nan|inf)$)[A-Za-z_][A-Za-z_./]*")
# Keys of a dict take no quotes, but these characters with a backslash.
SPECIAL = re.compile(r"([\\()\[\]{}:=, ])")
WRITABLE = re.compile(r"[\w/.+$%*@?|()\[\]{}:=, -]+", re.ASCII)
# Other keys pass the grammar as a word, which the loader replaces by the text.
ENCODED = "csgcnn_text_"


def quoted(text: str) -> str:
    """Return a text in quotes, as the value of an override."""
    return QuotedString(text, Quote.single).with_quotes()


def as_value(text: str) -> str:
    """Return a text as the value of an override, in quotes where it needs them."""
    return text if PLAIN.fullmatch(text) else quoted(text)


def as_dict_key(text: str) -> str:
    """Return a text as the key of a dict in an override."""
    return SPECIAL.sub(r"\\\1", text) if WRITABLE.fullmatch(text) else encoded(text)


def encoded(text: str) -> str:
    """Return a word of Hydra's grammar that stands for a text."""
    return ENCODED + text.encode().hex()


def decoded(text: str) -> str:
    """Return a text with the words that `encoded` made replaced by what they stand for."""
    return re.sub(f"{ENCODED}([0-9a-f]+)", lambda match: bytes.fromhex(match[1]).decode(), text)


def split_items(text: str) -> list[str]:
    """Split a text at commas outside of quotes and brackets."""
    items, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not items[-1].strip():
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and not quote and depth <= 0:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items]


class TextLoader(ConfigLoaderImpl):
    """Compose configurations, with any text as the key of a dict in an override."""

    _deletions: Sequence[Override] = ()

    def _load_configuration_impl(self, *arguments: Any, **options: Any) -> DictConfig:
        cfg = super()._load_configuration_impl(*arguments, **options)
        for override in self._deletions:
            _delete(cfg, override)
            cfg.hydra.overrides.task.append(override.input_line)
        return cfg

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> Any:
        parsed, repository = super()._parse_overrides_and_create_caching_repo(
            config_name, overrides
        )
        for override in parsed:
            if isinstance(override._value, Mapping):
                names = {key: decoded(key) for key in override._value if isinstance(key, str)}
                override._value = {names.get(k, k): v for k, v in override._value.items()}
        # Hydra would look for a name with a dot in a dict of a dict.
        self._deletions = [o for o in parsed if o.is_delete() and ENCODED in o.key_or_group]
        return [override for override in parsed if override not in self._deletions], repository


def _delete(cfg: DictConfig, override: Override) -> None:
    parent, _, name = override.key_or_group.rpartition(".")
    name, node, value = decoded(name), OmegaConf.select(cfg, parent), override.value()
    key = f"{parent}.{name}"
    if name not in node:
        raise ConfigCompositionException(f"Could not delete from config. '{key}' does not exist.")
    if value is not None and value != node[name]:
        reason = f"The value of '{key}' is {node[name]} and not {value}."
        raise ConfigCompositionException(f"Could not delete from config. {reason}")
    with open_dict(node):
        del node[name]


def list_of_text(value: str) -> str:
    """Return "[Eg (eV), gap]" with the quotes that its items need."""
    items: Sequence[str] = split_items(value[1:-1]) if value[1:-1].strip() else []
    return f"[{','.join(item if is_quoted(item) else as_value(item) for item in items)}]"


def is_quoted(text: str) -> bool:
    """Return whether a text is in quotes."""
    if len(text) < 2 or text[0] + text[-1] not in ("''", '""'):
        return False
    # 'a' if x > 0 else 'b' begins and ends with a quote, but is not in quotes
    return not re.search(rf"(?<!\\){text[0]}", text[1:-1])
