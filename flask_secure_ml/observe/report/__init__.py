"""A report of the audit log as one HTML page without scripts or external resources, in bounded memory.

:mod:`.figures` counts the records with :mod:`.timeline` and :mod:`.bounded`, :mod:`.drawings` and :mod:`.tables`
present them, :mod:`.charts` draws SVG, and :mod:`.page` renders the page.
"""
