"""Recorders: logs, metrics, traces, alerts and reports."""
