"""The control socket: what commands ask a running daemon, and its two ends. See docs/control.md."""
