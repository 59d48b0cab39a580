"""Hostile programs of each language. One passes only if its attack succeeded, unless said.

CANARY is the path of a private file, PORT a server's on this machine, TOKEN a word to find
processes by.
"""

from __future__ import annotations

_JAVA = """import java.io.*; import java.net.*; import java.nio.file.*; import java.util.*;
public class Main { public static void main(String[] a) throws Exception { BODY } }"""
_CPP = """#include <arpa/inet.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>
int main() { BODY }"""


def _java(body: str) -> str:
    return _JAVA.replace("BODY", body)


def _cpp(body: str) -> str:
    return _CPP.replace("BODY", body)


# Name of the attack -> language -> program.
ATTACKS: dict[str, dict[str, str]] = {
    "fork bomb": {
        "python": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n",
        "cpp": _cpp("while (true) fork();"),
        "java": _java(
            "List<Process> all = new ArrayList<>(); while (all.size() < 1000) "
            'try { all.add(new ProcessBuilder("sleep", "100").start()); } '
            "catch (IOException error) { Thread.sleep(1); }"
        ),
        "javascript": (
            "const { spawn } = require('child_process')\nlet n = 0\n"
            "const more = () => { spawn('sleep', ['100']).on('error', () => {})\n"
            "if (++n < 1000) setTimeout(more) }\nmore()"
        ),
    },
    "thread bomb": {
        "python": (
            "import threading, time\nfor _ in range(1000):\n"
            "    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n"
        ),
        "cpp": _cpp(
            "for (int i = 0; i < 1000; i++) std::thread([] { sleep(100); }).detach(); return 0;"
        ),
        "java": _java(
            "for (int i = 0; i < 1000; i++) { Thread t = new Thread(() -> { while (true) "
            "try { Thread.sleep(1000); } catch (InterruptedException e) {} }); "
            "t.setDaemon(true); t.start(); }"
        ),
        "javascript": (
            "const { Worker } = require('worker_threads')\nfor (let i = 0; i < 1000; i++)\n"
            "  new Worker('setInterval(() => {}, 1000)', { eval: true })\n"
        ),
    },
    "memory bomb": {
        "python": "x = []\nwhile True: x.append(b'x' * (1 << 24))\n",
        "cpp": _cpp("while (true) memset(malloc(1 << 24), 1, 1 << 24);"),
        "java": _java(
            "List<byte[]> all = new ArrayList<>(); while (true) all.add(new byte[1 << 24]);"
        ),
        "javascript": "const x = []\nwhile (true) x.push(Buffer.alloc(1 << 24, 1))\n",
    },
    "memory of children": {
        "python": (
            "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n"
            "        x = b'x' * (150 << 20)\n        time.sleep(100)\ntime.sleep(3)\n"
        ),
        "cpp": _cpp(
            "for (int i = 0; i < 12; i++) if (fork() == 0) { memset(malloc(150 << 20), 1, "
            "150 << 20); sleep(100); } sleep(3);"
        ),
        "javascript": (
            "const { spawn } = require('child_process')\nfor (let i = 0; i < 3; i++)\n"
            "  spawn(process.execPath, ['-e', 'const x = Buffer.alloc(600 << 20, 1); "
            "setTimeout(() => x, 9e4)']).unref()\nsetTimeout(() => {}, 6000)"
        ),
    },
    "disk filler": {
        "python": (
            "for n in range(64):\n    with open(f'f{n}', 'wb') as f: f.write(b'x' * (1 << 20))\n"
        ),
        "cpp": _cpp(
            "std::vector<char> data(1 << 20); for (int i = 0; i < 64; i++) { "
            'FILE *f = fopen(std::to_string(i).c_str(), "wb"); '
            "if (!f || fwrite(data.data(), 1, data.size(), f) != data.size() || fclose(f)) "
            "return 1; }"
        ),
        "java": _java(
            'for (int i = 0; i < 64; i++) Files.write(Path.of("f" + i), new byte[1 << 20]);'
        ),
        "javascript": (
            "for (let i = 0; i < 64; i++) "
            "require('fs').writeFileSync('f' + i, Buffer.alloc(1 << 20))"
        ),
    },
    "large file": {
        "python": "open('f', 'wb').write(b'x' * (64 << 20))\n",
        "cpp": _cpp(
            'signal(SIGXFSZ, SIG_IGN); FILE *f = fopen("f", "wb"); '
            "return fseek(f, 64 << 20, SEEK_SET) || fputc('x', f) == EOF || fclose(f);"
        ),
        "java": _java('Files.write(Path.of("f"), new byte[64 << 20]);'),
        "javascript": "require('fs').writeFileSync('f', Buffer.alloc(64 << 20))",
    },
    "endless output": {
        "python": "while True: print('x' * 1000)\n",
        "cpp": _cpp('while (true) puts("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");'),
        "java": _java('while (true) System.out.println("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");'),
        "javascript": "while (true) require('fs').writeSync(1, 'x'.repeat(1000))",
    },
    "reading the home directory": {
        "python": "assert open('CANARY').read() == 'private'\n",
        "cpp": _cpp('return fopen("CANARY", "r") == nullptr;'),
        "java": _java('Files.readString(Path.of("CANARY"));'),
        "javascript": "require('fs').readFileSync('CANARY')",
    },
    "links out of the directory": {
        "python": "import os\nos.symlink('CANARY', 'x')\nopen('x').read()\n",
        "cpp": _cpp('return symlink("CANARY", "x") || fopen("x", "r") == nullptr;'),
        "java": _java(
            'Files.createSymbolicLink(Path.of("x"), Path.of("CANARY")); '
            'Files.readString(Path.of("x"));'
        ),
        "javascript": (
            "const fs = require('fs')\nfs.symlinkSync('CANARY', 'x')\nfs.readFileSync('x')"
        ),
    },
    "writing through links": {
        "python": "import os\nos.symlink('CANARY', 'x')\nopen('x', 'w').write('changed')\n",
        "cpp": _cpp('return symlink("CANARY", "x") || fopen("x", "w") == nullptr;'),
        "java": _java(
            'Files.createSymbolicLink(Path.of("x"), Path.of("CANARY")); '
            'Files.writeString(Path.of("x"), "changed");'
        ),
        "javascript": (
            "const fs = require('fs')\nfs.symlinkSync('CANARY', 'x')\n"
            "fs.writeFileSync('x', 'changed')"
        ),
    },
    "connecting out": {
        "python": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 2)\n",
        "cpp": _cpp(
            "int s = socket(AF_INET, SOCK_STREAM, 0); sockaddr_in to{}; "
            "to.sin_family = AF_INET; to.sin_port = htons(PORT); "
            "to.sin_addr.s_addr = htonl(INADDR_LOOPBACK); "
            "return s < 0 || connect(s, (sockaddr *)&to, sizeof to);"
        ),
        "java": _java('new Socket("127.0.0.1", PORT).close();'),
        "javascript": ("require('net').connect(PORT, '127.0.0.1', function () { this.destroy() })"),
    },
}

# These may well pass: what counts is what they leave.
SURVIVORS: dict[str, dict[str, str]] = {
    "killing the parent": {
        "python": (
            "import os\nfor target in (os.getppid(), 1, -1):\n    for number in (9, 15, 19):\n"
            "        try: os.kill(target, number)\n        except OSError: pass\n"
        ),
        "cpp": _cpp("kill(getppid(), 9); kill(1, 9); kill(-1, 9);"),
        "java": _java(
            "ProcessHandle.current().parent().ifPresent(p -> p.destroyForcibly()); "
            'new ProcessBuilder("sh", "-c", "kill -9 1; kill -9 -1").start().waitFor();'
        ),
        "javascript": (
            "for (const target of [process.ppid, 1, -1])\n"
            "  try { process.kill(target, 9) } catch {}"
        ),
    },
    "leaving daemons behind": {
        "python": (
            "import subprocess\nfor _ in range(3):\n    subprocess.Popen("
            "['setsid', 'sh', '-c', 'trap \"\" 1 2 15; sleep 100; : TOKEN'])\n"
        ),
        "cpp": _cpp(
            "if (fork() == 0) { setsid(); if (fork() == 0) "
            'execl("/bin/sh", "sh", "-c", "sleep 100; : TOKEN", nullptr); _exit(0); }'
        ),
        "java": _java(
            'new ProcessBuilder("setsid", "sh", "-c", "sleep 100; : TOKEN").inheritIO().start();'
        ),
        "javascript": (
            "require('child_process').spawn('sh', ['-c', 'sleep 100; : TOKEN'], "
            "{ detached: true, stdio: 'inherit' }).unref()"
        ),
    },
}

_NESTED = "x++;"
for _ in range(34):
    _NESTED = f"try {{ x++; }} finally {{ {_NESTED} }}"  # its code doubles each time

COMPILER_HANGS = {
    "cpp": {
        "templates": (
            "template<int D, int I> struct T { T<D - 1, 2 * I> a; T<D - 1, 2 * I + 1> b; };\n"
            "template<int I> struct T<0, I> {};\nT<28, 0> t;\nint main() {}\n"
        ),
        "endless include": '#include "/dev/zero"\nint main() {}\n',
        "itself": '#include "program.cpp"\nint main() {}\n',
        "standard input": '#include "/dev/stdin"\nint main( {}\n',
        "macros": "".join(
            f"#define M{n} M{n - 1} M{n - 1} M{n - 1} M{n - 1}\n" for n in range(1, 24)
        ).replace("M0", "1+")
        + "int main() { return M23 1; }\n",
        "large array": "char x[1 << 30] = {1};\nint main() {}\n",
    },
    "java": {
        "nested finally": (
            "public class Main { public static void main(String[] a) "
            f"{{ int x = 0; {_NESTED} }} }}\n"
        ),
        "growing constant": (
            'public class Main { static final String s0 = "xxxxxxxxxxxxxxxx";\n'
            + "".join(f"static final String s{n} = s{n - 1} + s{n - 1};\n" for n in range(1, 40))
            + "public static void main(String[] a) {} }\n"
        ),
        "deep expression": (
            "public class Main { public static void main(String[] a) { int x = "
            + "(" * 20_000 + "1" + ")" * 20_000 + "; } }\n"
        ),
    },
}  # fmt: skip
