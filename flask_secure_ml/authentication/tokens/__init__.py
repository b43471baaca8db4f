"""Access tokens: JWT (RFC 9068), introspection (RFC 7662), and proof of possession (RFC 9449, RFC 8705)."""
