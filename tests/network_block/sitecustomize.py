"""Loaded by every Python process that the tests start (the folder is on PYTHONPATH): blocks the network there too."""

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

import loopback_only

if os.environ.get(loopback_only.LOG):
    loopback_only.install()

# Python imports only the first sitecustomize it finds; a second one, of the system, must not be lost.
_here = Path(__file__).resolve().parent
_others = [entry for entry in sys.path if entry and Path(entry).resolve() != _here]
_next = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
if _next is not None and _next.loader is not None:
    _next.loader.exec_module(importlib.util.module_from_spec(_next))
