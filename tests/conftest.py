"""What all tests share."""

from __future__ import annotations

import os

os.environ["MPLBACKEND"] = "Agg"  # figures are looked at as objects; no test opens a window, whatever the shell says
