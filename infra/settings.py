"""Settings of a process: read once from SKYAGENT_* variables, then passed by hand. Nothing else reads the environment.

Nested fields use two underscores (SKYAGENT_GATEWAY__PORT=7800); lists and maps are JSON.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from infra.errors import InvalidArgument, Violation

PREFIX = "SKYAGENT_"
_NESTED = "__"
WORKER_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Names of workers, as the contract has them: they are folders, too."""


def _default_data_dir() -> Path:
    """XDG base directory specification."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "skyagent"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port"; raises ValueError."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port with a port from 0 to 65535")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewaySettings(_Part):
    """Where people and clients connect."""

    host: str = "127.0.0.1"
    port: int = Field(default=7700, ge=0, le=65535)


class LogSettings(_Part):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json_lines: bool = False


class LeaseSettings(_Part):
    """Leases of steps on workers, in seconds."""

    ttl: float = Field(default=10.0, gt=0)
    heartbeat: float = Field(default=2.0, gt=0)
    grace: float = Field(default=2.0, ge=0)

    @model_validator(mode="after")
    def _beats_fit(self) -> LeaseSettings:
        if self.heartbeat * 2 > self.ttl:
            raise ValueError(f"heartbeat {self.heartbeat} s must be at most half of ttl {self.ttl} s")
        return self


class OwnershipSettings(_Part):
    """How control planes on one database tell that another is dead, in seconds."""

    ttl: float = Field(default=2.0, gt=0)
    """A node whose beat did not rise for so long, by the clock of the one that looks, owns nothing any more."""
    beat: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _beats_fit(self) -> OwnershipSettings:
        if self.beat * 3 > self.ttl:
            raise ValueError(f"beat {self.beat} s must be at most a third of ttl {self.ttl} s")
        return self


class RetentionSettings(_Part):
    """What becomes of runs that have ended."""

    archive_after_days: float | None = Field(default=None, ge=0)
    """Age, counted from its end, at which a run's journal is moved into a compressed file; None: only when asked."""
    every: float = Field(default=3600.0, gt=0)
    """Seconds between two passes."""
    at_once: int = Field(default=100, ge=1)
    """How many runs a pass archives at most."""


class LimitsSettings(_Part):
    """What tenants may have at once, and how what there is is shared among those that wait."""

    active_runs_per_tenant: int | None = Field(default=None, ge=1)
    """Runs that have begun and not ended, those included that wait for a person; the others stay queued."""
    tenant_weights: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    """A tenant of weight 2 gets two turns where others get one; who is not named has 1."""


class BrowserSettings(_Part):
    """How browsers are started; no executable means the first Chromium on the PATH."""

    executable: Path | None = None
    flags: tuple[str, ...] = ()
    headless: bool = True


class WorkerPlace(_Part):
    """Where a worker belongs, for one that another program starts; its command line wins."""

    connect: str = ""
    """host:port of the control plane; empty: `listen`."""
    id: str = ""
    token_file: Path | None = None
    witness: str = ""
    """For trials of the protocol only: where a no-op tells that it happened, as http://host:port/path."""


class EgressSettings(_Part):
    """What sessions may reach besides what a mission declares.

    Host names, with their port unless it is 80 or 443; "*.example.com" for every name below.
    """

    allow: tuple[str, ...] = ()


class Settings(BaseSettings):
    """Everything a process can be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=_NESTED, frozen=True, extra="ignore")

    data_dir: Path = Field(default_factory=_default_data_dir)
    listen: str = "127.0.0.1:7701"
    """Where the services of this process listen; port 0 takes a free one."""
    advertise: str | None = None
    """host:port by which workers and other control planes of one database reach this one; None: `listen`."""
    allow_remote: bool = False
    """Whether `listen` and the gateway may be reached from other machines."""
    peers: dict[str, str] = Field(default_factory=dict)
    """Addresses of services that run in other processes, by service name."""
    tenant: str = Field(default="default", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Tenant of the tokens that are written at start."""
    node_id: str = Field(default="node-1", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    database_url: SecretStr | None = None
    """postgresql://user:password@host:port/name, shared by several control planes; None: SQLite in the data folder."""
    redis_url: SecretStr | None = None
    """redis://user:password@host:port of a Redis or Valkey that carries wakes between them; None: NOTIFY does."""
    dry_run: bool = False
    otlp_endpoint: str | None = None
    """An OTLP/gRPC collector as http://host:port; None: no telemetry leaves and none is made."""
    metrics: bool = True
    """Whether this process counts what it does, for `GET /metrics`."""
    drain_grace: float = Field(default=5.0, ge=0)
    """Seconds that calls in flight have to end after a SIGTERM."""
    default_deadline: float = Field(default=30.0, gt=0)
    """Seconds for a unary call whose caller set no deadline."""
    max_deadline: float = Field(default=3600.0, gt=0)
    """Longest deadline in seconds that a unary call may ask for."""
    workers: dict[str, int] = Field(default_factory=lambda: {"browser": 1})
    """How many workers of each kind `up` starts."""
    gateway: GatewaySettings = GatewaySettings()
    log: LogSettings = LogSettings()
    lease: LeaseSettings = LeaseSettings()
    ownership: OwnershipSettings = OwnershipSettings()
    retention: RetentionSettings = RetentionSettings()
    limits: LimitsSettings = LimitsSettings()
    browser: BrowserSettings = BrowserSettings()
    worker: WorkerPlace = WorkerPlace()
    egress: EgressSettings = EgressSettings()

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("peers")
    @classmethod
    def _addresses(cls, peers: dict[str, str]) -> dict[str, str]:
        for address in peers.values():
            split_address(address)
        return peers

    @field_validator("advertise")
    @classmethod
    def _address(cls, address: str | None) -> str | None:
        if address is not None:
            split_address(address)
        return address

    @model_validator(mode="after")
    def _stays_home(self) -> Settings:
        for name, host in (("listen", split_address(self.listen)[0]), ("gateway.host", self.gateway.host)):
            if not self.allow_remote and not is_loopback(host):
                raise ValueError(
                    f"{name} {host!r} can be reached from elsewhere; use 127.0.0.1, or set {PREFIX}ALLOW_REMOTE=true"
                )
        return self

    @property
    def journal_path(self) -> Path:
        return self.data_dir / "journal.db"

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def agentfs_dir(self) -> Path:
        return self.data_dir / "agentfs"

    @property
    def keys_dir(self) -> Path:
        return self.data_dir / "keys"

    @property
    def session_key_path(self) -> Path:
        """With which workers seal what a session can be started from elsewhere."""
        return self.keys_dir / "sessions.key"

    @property
    def token_path(self) -> Path:
        """The token of the person at this machine (role admin)."""
        return self.data_dir / "token"

    def worker_token_path(self, worker_id: str) -> Path:
        """A worker's own token: it speaks for that worker and for no other."""
        return self.workers_dir / worker_id / "token"

    @property
    def internal_token_path(self) -> Path:
        return self.data_dir / "internal.token"

    @property
    def workers_dir(self) -> Path:
        return self.data_dir / "workers"

    @property
    def run_dir(self) -> Path:
        """Pidfiles, logs and the rendered Envoy configuration."""
        return self.data_dir / "run"

    @property
    def up_lock_path(self) -> Path:
        return self.data_dir / "up.lock"


def load_settings(**overrides: object) -> Settings:
    """The settings of this process; overrides (of a command line) win. InvalidArgument names the variable at fault."""
    try:
        return Settings.model_validate(overrides) if overrides else Settings()
    except ValidationError as bad:
        raise InvalidArgument(*_violations(bad), reason="SETTINGS_INVALID") from bad
    except SettingsError as bad:
        raise InvalidArgument(
            Violation(f"{PREFIX}*", f"{bad}: {bad.__cause__}; lists and maps are JSON"), reason="SETTINGS_INVALID"
        ) from bad


def environment() -> dict[str, str]:
    """A copy of the environment, for processes to be started."""
    return dict(os.environ)


def _violations(bad: ValidationError) -> list[Violation]:
    return [
        Violation(
            PREFIX + _NESTED.join(str(part) for part in error["loc"]).upper() if error["loc"] else f"{PREFIX}*",
            error["msg"].removeprefix("Value error, ") + (f" (got {error['input']!r})" if error["loc"] else ""),
        )
        for error in bad.errors()
    ]
