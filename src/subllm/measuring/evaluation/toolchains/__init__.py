"""Programs of four languages, compiled and run by their real tool chains in a sandbox."""

from collections.abc import Callable

from subllm.errors import UnknownNameError
from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains.cpp import CppToolchain
from subllm.measuring.evaluation.toolchains.java import JavaToolchain
from subllm.measuring.evaluation.toolchains.javascript import JavaScriptToolchain
from subllm.measuring.evaluation.toolchains.python import PythonToolchain
from subllm.measuring.evaluation.toolchains.verdict import Toolchain, Verdict

__all__ = ["Toolchain", "Verdict", "toolchain"]

_TOOLCHAINS: dict[str, Callable[[Sandbox], Toolchain]] = {
    "python": PythonToolchain,
    "java": JavaToolchain,
    "cpp": CppToolchain,
    "javascript": JavaScriptToolchain,
}


def toolchain(language: str, sandbox: Sandbox) -> Toolchain:
    """The tool chain of `language` (python, java, cpp, javascript), at work in `sandbox`.

    It lasts as long as the sandbox. Raises ToolchainMissingError where compiler or
    interpreter are missing or do not work, UnknownNameError for another language.
    """
    if language not in _TOOLCHAINS:
        raise UnknownNameError("language with a tool chain", language, _TOOLCHAINS)
    return _TOOLCHAINS[language](sandbox)
