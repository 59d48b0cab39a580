"""The backend that runs on torch; importing it imports torch."""

from subllm.runtime.backends.torch.backend import TorchBackend

__all__ = ["TorchBackend"]
