"""Capture: the only room that registers hooks, enters function modes or calls autograd."""

from attnlib.hooks.capture import capture as capture
from attnlib.hooks.capturing import capturing as capturing
from attnlib.hooks.probe import probe_readout as probe_readout

__all__ = ["capture", "capturing", "probe_readout"]
