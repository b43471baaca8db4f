"""The audit log: who did what, when, with what result and why; tamper-evident up to the last outside checkpoint.

:mod:`.records` is the form of a record, :mod:`.stream` the file of one process, :mod:`.index` what joins the streams,
and :mod:`.checkpoint` what is signed and sent to :mod:`.sinks`. :mod:`.verify` needs none of the app.
"""
