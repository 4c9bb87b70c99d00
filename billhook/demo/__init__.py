"""The demo: a small but real task, a network for it, and the main job from training to the report."""

from .run import run

__all__ = ["run"]
