"""Access tokens: JWT (RFC 9068), introspection (RFC 7662), and what binds them to a key (RFC 9449, RFC 8705)."""
