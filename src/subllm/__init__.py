"""subllm: coding models made for your language and your machine.

Importing this package imports neither torch nor numpy.
"""

from subllm.errors import SubllmError

__version__ = "0.1.0"

__all__ = ["SubllmError", "__version__"]
