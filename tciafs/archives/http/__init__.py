"""Asking servers over HTTP: deadlines, retries, bounds."""
