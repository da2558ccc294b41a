"""ringbridge.toml: the settings as typed records, and errors that say how to mend the file.

Every key is described once, here, by its field; docs/configuration.md says the same in words and a
test holds the two together. A wrong file raises ConfigError, which names file, key, value, rule and
mend.

section     what every table is
sections    the tables but the roles
groups      [groups.<name>] and its rules
role        [roles.<name>] and its sub-tables
whole       the file as one record
rules       what no type can say; role_rules: of a role
reading     from the file to the record
comparing   between two such records, and what of it a running bridge cannot take
words       msgspec's errors in our words
"""

from bridge.config.comparing import Change, changes, refused, with_value
from bridge.config.errors import ConfigError, ConfigErrors
from bridge.config.groups import GroupSettings
from bridge.config.reading import build, load, parse, sections
from bridge.config.role import (
    CallbackSettings,
    CheckpointSettings,
    PeerSettings,
    RemoteSettings,
    Restart,
    RoleConfig,
)
from bridge.config.sections import (
    CheckpointStoreSettings,
    LaneSettings,
    LimitSettings,
    LinkSettings,
    MetricsSettings,
    NodeConfig,
    TenantSettings,
    TlsSettings,
)
from bridge.config.whole import Config

__all__ = [
    "CallbackSettings",
    "Change",
    "CheckpointSettings",
    "CheckpointStoreSettings",
    "Config",
    "ConfigError",
    "ConfigErrors",
    "GroupSettings",
    "LaneSettings",
    "LimitSettings",
    "LinkSettings",
    "MetricsSettings",
    "NodeConfig",
    "PeerSettings",
    "RemoteSettings",
    "Restart",
    "RoleConfig",
    "TenantSettings",
    "TlsSettings",
    "build",
    "changes",
    "load",
    "parse",
    "refused",
    "sections",
    "with_value",
]
