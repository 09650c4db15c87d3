"""What the daemon tells monitoring: figures for Prometheus, and whether it lives and claims.

`tally` counts on the event loop and imports nothing; all else is imported only where metrics are served.
"""

from __future__ import annotations

from jobqd.metrics.tally import Observer, Silent, Tally

__all__ = ["Observer", "Silent", "Tally"]
