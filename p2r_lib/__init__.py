"""Process-aware reinforcement learning for video reasoning, small enough to read."""

__version__ = "0.1.0"
