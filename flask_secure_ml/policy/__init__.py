"""What a route asks of its callers: options, decorators, and which policy a request has."""
