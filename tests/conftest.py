"""Plugins of the suite."""

pytest_plugins = ["pytester"]
