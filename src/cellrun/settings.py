"""Settings of the command: flags, then `CELLRUN_*` variables, then a file. The only module that reads them.

The file is TOML, at `$CELLRUN_CONFIG`, else `$XDG_CONFIG_HOME/cellrun/config.toml`, else
`~/.config/cellrun/config.toml`; it need not exist. The library itself reads no settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as UnreadableVariable

from cellrun.errors import CellrunError


class SettingsError(CellrunError):
    """A setting has a value that it cannot have; the message names it and where it came from."""

    code = "settings"


def config_file() -> Path:
    """Where the settings file is looked for."""
    named = os.environ.get("CELLRUN_CONFIG")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(base) / "cellrun" / "config.toml"


class Settings(BaseSettings):
    """What the command can be told. Every field is a variable, `CELLRUN_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="CELLRUN_", extra="forbid", hide_input_in_errors=True)

    server: str | None = Field(
        None, description="Address of a Jupyter server or cellrun service; none: kernels on this machine"
    )
    token: SecretStr | None = Field(None, description="Token of the server, or key of the service")
    token_file: Path | None = Field(None, description="File that holds the token or key")
    password: SecretStr | None = Field(None, description="Password of the server's login form")
    ca_file: Path | None = Field(None, description="Certificate authority (PEM) that signed the server's certificate")
    verify: bool = Field(True, description="Whether the server's certificate is verified")
    kernel: str | None = Field(None, description="Kernelspec; none: the default")
    sandbox: Literal["auto", "none"] = Field(
        "auto", description="Containment of kernels on this machine; none: code has your rights"
    )
    allow: dict[str, Any] = Field(
        default_factory=dict, description="What contained code may do beyond the default: fields of SandboxPolicy"
    )
    timeout: float | None = Field(None, ge=0, description="Seconds that a cell may run; none: no limit")
    host: str = Field("127.0.0.1", description="serve: address to listen on; others than this machine's need keys")
    port: int = Field(8080, ge=0, le=65535, description="serve: port to listen on; 0: any that is free")
    data: Path | None = Field(None, description="serve, keys: folder of the database; none: ~/.local/share/cellrun")
    preload: str = Field(
        "auto",
        description="serve: modules that are loaded before kernels are forked, with commas; auto: the usual ones; none",
    )
    max_kernels: int | None = Field(None, ge=1, description="serve: kernels at once; none: no limit")
    max_timeout: float | None = Field(3600.0, ge=0, description="serve: seconds that a run may ask for")
    idle_timeout: float | None = Field(
        1800.0, ge=0, description="serve: seconds without use that end a session's kernel"
    )
    drain_timeout: float = Field(30.0, ge=0, description="serve: seconds that runs may go on after SIGTERM")
    keep_days: float = Field(7.0, ge=0, description="serve: days that runs are kept")
    quota_sessions: int | None = Field(100, ge=1, description="serve: sessions of one tenant")
    quota_kernels: int | None = Field(None, ge=1, description="serve: kernels of one tenant at once; none: no limit")
    quota_runs: int | None = Field(32, ge=1, description="serve: runs of one tenant that wait or go on")
    quota_watchers: int | None = Field(
        100, ge=1, description="serve: connections of one tenant on which events are read"
    )
    quota_cpu: float | None = Field(
        None, gt=0, description="serve: processor seconds of one tenant in an hour; none: no limit"
    )
    quota_disk: int | None = Field(
        None, ge=1, description="serve: bytes on disk of one tenant, stored runs and files together; none: no limit"
    )
    quota_requests: int | None = Field(3000, ge=1, description="serve: requests of one tenant in a minute")
    jwt_issuer: str | None = Field(
        None, description="serve: issuer (`iss`) whose signed tokens are taken; none: none are"
    )
    jwt_audience: str | None = Field(None, description="serve: audience (`aud`) that a token must be for")
    jwt_keys: str | None = Field(None, description="serve: path or https address of the issuer's keys (JWKS)")
    jwt_claim: str = Field("sub", description="serve: claim of a token that names the tenant")
    interfaces: str = Field(
        "all", description="serve: what it speaks besides its own API: jupyter, mcp, tools, e2b, with commas; all; none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="serve: what is logged")
    images: Literal["auto", "files", "off"] = Field(
        "auto", description="Pictures: in the terminal where it can, else as files; always as files; not at all"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: Any, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        return named["init_settings"], named["env_settings"], file

    @property
    def data_folder(self) -> Path:
        """Of the service."""
        if self.data is not None:
            return self.data
        base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
        return Path(base, "cellrun")

    def server_token(self) -> str:
        """The token: of the variable or file. Raises SettingsError for a file that cannot be read."""
        if self.token_file is not None:
            try:
                return self.token_file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is not text"
                raise SettingsError(f"the token file cannot be read: {self.token_file}: {why}") from None
        return self.token.get_secret_value() if self.token is not None else ""


def load(flags: Mapping[str, Any]) -> Settings:
    """The settings with these flags on top; flags that are None were not given. Raises SettingsError."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise SettingsError(
            f"the setting {name!r} is not valid: {first['msg']} "
            f"(from a flag, the variable CELLRUN_{name.upper()}, or {config_file()})"
        ) from None
    except UnreadableVariable:
        # Only variables are JSON, and only `allow` wants more than a word.
        raise SettingsError(
            "the variable CELLRUN_ALLOW is not JSON: an object with fields of SandboxPolicy is expected, such as "
            """'{"memory": "1GB", "network": "full"}'"""
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"the settings file {config_file()} cannot be read: {error}") from None
