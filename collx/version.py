"""The version of collx."""

__version__ = "0.1.0"
