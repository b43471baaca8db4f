"""The audit log of requests and events, tamper-evident up to the last external checkpoint.

:mod:`.records` defines the format of a record, :mod:`.stream` the file of one process, :mod:`.index` joins the
streams, and :mod:`.checkpoint` is signed and sent to :mod:`.sinks`. :mod:`.verify` does not need the app.
"""
