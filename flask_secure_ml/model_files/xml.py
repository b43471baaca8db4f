"""Finding XML whose reader would open other files.

A document type, or an entity that it declares, can name a file of the machine (CWE-611). Models in XML, such as PMML
and OpenVINO, have none. Source: Extensible Markup Language 1.0, sections 2.8, 4.2.2 and F.
"""

from __future__ import annotations

import re
from typing import BinaryIO

_CHUNK = 1 << 20
_BEFORE = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
_DOCUMENT_TYPE = b"<!DOCTYPE"
_ENCODING = re.compile(rb"""\A<\?xml[^>]*?encoding\s*=\s*["']([^"']*)""")
# In these the characters of markup are the bytes of ASCII, with zeros between them.
_PLAIN_ENCODING = re.compile(
    rb"utf-?(8|16|32)(le|be)?|ucs-?[24]|(us-)?ascii|iso-8859-\d+|latin-?1|windows-125\d", re.IGNORECASE
)
_EBCDIC = b"\x4c\x6f\xa7\x94"


def begins(head: bytes) -> bool:
    """Return True if a file that begins so could be XML."""
    return head.lstrip(_BEFORE).startswith(b"<") or head.startswith(_EBCDIC)


def names_files(stream: BinaryIO) -> bool:
    """Return True if XML has a document type, or an encoding in which one cannot be searched for."""
    window = stream.read(_CHUNK)
    declared = _ENCODING.match(window.replace(b"\0", b"").lstrip(_BEFORE))
    if window.startswith(_EBCDIC) or (declared and not _PLAIN_ENCODING.fullmatch(declared[1])):
        return True
    tail = b""
    while window:
        tail += window.replace(b"\0", b"")
        if _DOCUMENT_TYPE in tail:
            return True
        tail = tail[-len(_DOCUMENT_TYPE) :]
        window = stream.read(_CHUNK)
    return False
