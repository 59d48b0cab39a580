"""The backend that runs on the compiled core; it needs neither torch nor a GPU."""

from subllm.runtime.backends.native.backend import KvType, NativeBackend

__all__ = ["KvType", "NativeBackend"]
