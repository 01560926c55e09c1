"""Compare the demo's network with a plain one: equal multiply-adds, equal seconds, the same clips; seeds 0, 1 and 2.

The plain network is a residual CNN on the five frames of the window, stacked. The table goes to docs/demo.md.
"""

from __future__ import annotations
