"""Which files a repository leaves out: .gitignore files, nested ones and those above."""

from __future__ import annotations

from pathlib import Path

import pathspec


class IgnoreRules:
    """Decides as git does: the rule nearest to the file counts, in a file the last one."""

    def __init__(self, root: Path) -> None:
        """Reads what applies to `root` from the repository around it, if there is one."""
        self._specs: dict[Path, pathspec.GitIgnoreSpec] = {}
        for directory in (root, *root.parents):
            if (directory / ".git").exists():
                for above in (*reversed(root.parents), root):
                    if above.is_relative_to(directory):
                        self.enter(above)
                break

    def enter(self, directory: Path) -> None:
        """To be called for a directory before anything inside is asked about."""
        if directory in self._specs:
            return
        lines: list[str] = []
        for name in (".git/info/exclude", ".gitignore"):
            try:
                lines += (directory / name).read_text("utf-8", "replace").splitlines()
            except OSError:
                continue
        if lines:
            self._specs[directory] = pathspec.GitIgnoreSpec.from_lines(_valid(lines))

    def ignores(self, path: Path, is_directory: bool = False) -> bool:
        for directory in path.parents:
            spec = self._specs.get(directory)
            if spec is None:
                continue
            relative = path.relative_to(directory).as_posix() + ("/" if is_directory else "")
            included = spec.check_file(relative).include
            if included is not None:
                return included
        return False


def _valid(lines: list[str]) -> list[str]:
    """Without the patterns that are none: git passes over them as well."""
    kept = []
    for line in lines:
        try:
            pathspec.GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue
        kept.append(line)
    return kept
