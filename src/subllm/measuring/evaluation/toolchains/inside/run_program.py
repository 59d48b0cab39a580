"""Runs program.py and writes the secret from standard input if its end is reached."""

import os
import sys
import types

leave, write = os._exit, os.write  # the program may replace them
secret = os.read(0, 64)
out = os.dup(1)
with open("program.py", encoding="utf-8") as file:  # noqa: PTH123
    text = file.read()
try:
    code = compile(text, "program.py", "exec")
except (SyntaxError, ValueError) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    leave(int(sys.argv[1]))
del sys.argv[1:]
module = types.ModuleType("program")
sys.modules["program"] = module
exec(code, module.__dict__)  # noqa: S102
write(out, secret)
leave(0)
