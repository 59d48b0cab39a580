"""Where editors keep their settings on this system."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home(*parts: str) -> Path:
    return Path.home().joinpath(*parts)


def config(*parts: str) -> Path:
    """Under XDG_CONFIG_HOME, as many programs have it also on macOS."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or home(".config")).joinpath(*parts)


def vscode(*parts: str) -> Path:
    """In the user's directory of VS Code; of a relative of it where only that is there."""
    if sys.platform == "darwin":
        root = home("Library", "Application Support")
    elif sys.platform == "win32":
        root = Path(os.environ.get("APPDATA") or home("AppData", "Roaming"))
    else:
        root = config()
    names = ("Code", "Code - Insiders", "VSCodium")
    found = next((name for name in names if (root / name).is_dir()), names[0])
    return root.joinpath(found, "User", *parts)


def zed(*parts: str) -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or home("AppData", "Roaming")).joinpath("Zed", *parts)
    return config("zed", *parts)
