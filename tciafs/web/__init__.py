"""The web page of `tciafs status --web`: that command serves it, and asks the daemons."""
