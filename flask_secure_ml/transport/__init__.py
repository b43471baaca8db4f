"""TRANSPORT: the client behind proxies, TLS, the WSGI stack of the app, and the headers of responses."""
