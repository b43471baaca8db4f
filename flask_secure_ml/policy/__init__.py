"""Policies of routes: their options, the decorators, and which policy holds for a request."""
