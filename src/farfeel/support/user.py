"""Users without a name on this system, as in a container that is started with `docker run --user 12345`."""

from __future__ import annotations

import getpass
import os
import tempfile

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def allow_users_without_a_name() -> None:
    """Name the folder of torch's compiler cache where torch cannot. To be called before torch is imported.

    torch puts the user's name into the path of that folder at its import, and fails where there is none.
    """
    if _CACHE in os.environ or not hasattr(os, "getuid"):
        return
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        os.environ[_CACHE] = os.path.join(tempfile.gettempdir(), f"torchinductor_{os.getuid()}")
