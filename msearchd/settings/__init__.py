"""Settings: one frozen model per stage, the default beside the field, one sentence each.

`config/msearchd.toml` lists every key with its default and its sentence; a test holds the two equal.
In: nothing here; msearchd.settings.load reads file and environment and reports all errors at once.
"""

from msearchd.settings.model import (
    ApiSettings,
    EmbeddingModel,
    ExtractSettings,
    InferenceSettings,
    LimitsSettings,
    LogSettings,
    QueueSettings,
    SearchSettings,
    Settings,
    StoreSettings,
    WatchSettings,
)

__all__ = [
    "ApiSettings",
    "EmbeddingModel",
    "ExtractSettings",
    "InferenceSettings",
    "LimitsSettings",
    "LogSettings",
    "QueueSettings",
    "SearchSettings",
    "Settings",
    "StoreSettings",
    "WatchSettings",
]
