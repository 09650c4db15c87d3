"""Everything about configuration: what can be set, where values come from, and what is wrong with them."""

from jobqd.settings.display import shown
from jobqd.settings.loading import Loaded, load
from jobqd.settings.model import JobSettings, Settings, default_runtime_dir
from jobqd.settings.urls import RedisUrl, parse_url, safe_url

__all__ = [
    "JobSettings",
    "Loaded",
    "RedisUrl",
    "Settings",
    "default_runtime_dir",
    "load",
    "parse_url",
    "safe_url",
    "shown",
]
