"""A node's configuration from its environment and a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .config import NodeConfig


class Settings(NodeConfig, BaseSettings):
    """The one class that looks at the environment, so that writing a NodeConfig never does."""

    model_config = SettingsConfigDict(env_prefix="LDKJIT_", env_nested_delimiter="__")

    @classmethod
    def of_file(cls, path: Path) -> dict[str, Any]:
        """The settings of a TOML file.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no TOML.
        """
        path.open("rb").close()  # the reader below takes a missing file for empty
        return TomlConfigSettingsSource(cls, path)()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file's values, which come by ``__init__``."""
        return env_settings, init_settings
