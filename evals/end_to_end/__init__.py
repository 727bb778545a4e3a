"""Missions through the whole mesh, judged by someone who took no part."""
