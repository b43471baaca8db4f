"""The error of everything about input profiles."""


class ProfileError(ValueError):
    """Data that no profile can be made of, or a file that is no profile; the message is for who runs the app."""
