"""Settings that all tests share: nothing is fetched, and a slow machine fails no property."""

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
