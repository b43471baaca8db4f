"""Policies of routes: their options, the decorators, and the lookup of the policy of a request."""
