"""Ordinary and self-draft decoding, as generators of events over one layered model."""

from selfdraft_viz.decoding.plain import decode_plain
from selfdraft_viz.decoding.request import Detail, Request, SettingsSource
from selfdraft_viz.decoding.selfdraft import decode_selfdraft

__all__ = ["Detail", "Request", "SettingsSource", "decode_plain", "decode_selfdraft"]
