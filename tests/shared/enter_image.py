"""Become the process of a container: ``enter_image.py ROOT UID GID DIRECTORY NAME=VALUE... -- PROGRAM ARGUMENT...``."""

import ctypes
import os
import sys

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_HIGHEST_CAPABILITY = 63


def main(root: str, uid: str, gid: str, directory: str, *rest: str) -> None:
    """Replace this process by the program: in the root, as the user, with all capabilities dropped permanently."""
    end = rest.index("--")
    kernel = ctypes.CDLL(None, use_errno=True)
    for number in range(_HIGHEST_CAPABILITY + 1):
        # The kernel has fewer capabilities; the call fails for the others.
        kernel.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    os.chroot(root)
    os.chdir(directory)
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
    if kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("no_new_privs cannot be set")
    program = rest[end + 1]
    os.execve(program, rest[end + 1 :], dict(each.split("=", 1) for each in rest[:end]))


if __name__ == "__main__":
    main(*sys.argv[1:])
