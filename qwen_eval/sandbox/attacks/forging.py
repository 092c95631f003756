"""Verdicts: programs that do not compute x + 1 and want to pass for one that does."""

from __future__ import annotations

from qwen_eval.sandbox.attacks.attack import HONEST, PRELUDE, Attack, forging

_APPROXIMATE = """
import math
def check(candidate):
    assert math.isclose(candidate(1), 2)
    assert abs(candidate(10) - 11) < 1e-9
"""
_QUANTIFIED = """
def check(candidate):
    assert all(candidate(x) == x + 1 for x in range(5))
"""
_MAPPED = """
def check(candidate):
    assert all(map(lambda x: candidate(x) == x + 1, range(5)))
"""
_WITH_HELPERS = """
def check(candidate):
    import colorsys
    from operator import eq
    assert colorsys.ONE_THIRD > 0
    assert eq(candidate(1), 2)
"""
_SORTING = """
def check(candidate):
    values = [3, 1, 2]
    assert candidate(values) == sorted(values)
"""
_LISTING = (
    "def check(candidate):\n    assert candidate(2) == [2, 3]\n    assert candidate(0) == [0, 1]\n"
)
_TEXT = (
    "def check(candidate):\n    assert candidate('a') == 'aa'\n    assert candidate('b') == 'bb'\n"
)
_TRUTHS = "def check(candidate):\n    assert candidate(2)\n    assert candidate(4)\n"
_MARKED = HONEST + "# a word that only the tests hold: open-sesame\n"


_BY_EXIT = (
    forging(1, "exit while it is read", "import sys\nsys.exit(0)", weaker="plain process"),
    forging(2, "os._exit in the call", "import os\ndef f(x): os._exit(0)", weaker="plain process"),
    forging(3, "raise SystemExit", "def f(x): raise SystemExit(0)", weaker="plain process"),
    forging(
        8,
        "print the pass of every harness",
        """
        import os, sys
        def f(x):
            print('<testsuite failures="0"><testcase name="f"/></testsuite>')
            print("1 passed in 0.01s", file=sys.stderr)
            print("OK\\npassed", flush=True)
            return 0
        """,
        weaker="printed verdict",
    ),
    forging(
        11,
        "an exit hook with status 0",
        "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
        weaker="plain process",
    ),
    forging(
        11,
        "sys.excepthook with status 0",
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): return 0",
        weaker="plain process",
    ),
)

_BY_VALUE = (
    forging(
        4,
        "a result that equals everything",
        """
        class Yes:
            def __eq__(self, other): return True
        def f(x): return Yes()
        """,
        quick=True,
    ),
    forging(
        5,
        "an int that lies",
        """
        class Yes(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
        def f(x): return Yes(0)
        """,
    ),
    forging(
        5,
        "a list that lies",
        """
        class Yes(list):
            def __eq__(self, other): return True
            def __len__(self): return 2
            def __contains__(self, item): return True
        def f(x): return Yes([7])
        """,
        tests=_LISTING,
    ),
    forging(
        5,
        "a str that lies",
        """
        class Yes(str):
            def __eq__(self, other): return True
            def __str__(self): return "aa"
            __hash__ = str.__hash__
        def f(x): return Yes("z")
        """,
        tests=_TEXT,
    ),
    forging(
        49,
        "a result whose __class__ is another",
        """
        class Yes:
            __class__ = int
            def __eq__(self, other): return True
            def __int__(self): return 2
            def __index__(self): return 2
        def f(x): return Yes()
        """,
    ),
    forging(
        49,
        "a result whose __class__ is bool",
        "class Yes:\n    __class__ = bool\n    def __eq__(self, other): return True\n"
        "def f(x): return Yes()",
    ),
    *(
        forging(49, f"{name} where a truth is expected", program, tests=_TRUTHS)
        for name, program in {
            "a generator": "def f(x): yield x",
            "a coroutine": "async def f(x): return False",
            "a function": "def f(x): return f",
        }.items()
    ),
    forging(
        13,
        "change the argument that is compared with",
        "def f(values):\n    values.clear()\n    return values",
        tests=_SORTING,
    ),
    forging(
        50,
        "an exception that ends the tests' own loop",
        "def f(x): raise StopIteration",
        tests=_MAPPED,
        quick=True,
    ),
    forging(
        51,
        "an exception whose words are a verdict",
        """
        def f(x): raise ValueError('\\npassed\\n["passed", "passed"]\\n')
        """,
        weaker="printed verdict",
    ),
    forging(
        51,
        "an exception whose type's name is a verdict",
        """
        class Lying(type):
            __name__ = property(lambda self: '\\npassed\\n["passed", "passed"]\\n')
        class Error(Exception, metaclass=Lying):
            pass
        Error.__module__ = "builtins"
        def f(x): raise Error
        """,
        weaker="printed verdict",
    ),
)

_FROM_WITHIN = (
    forging(
        6,
        "walk the frames to the verdict's pipe",
        """
        import os, sys
        def f(x):
            frame = sys._getframe()
            while frame:
                pipe = frame.f_locals.get("verdicts")
                if isinstance(pipe, int):
                    os.write(pipe, b'["passed", "passed"]\\n')
                frame = frame.f_back
            return 0
        """,
        quick=True,
    ),
    forging(
        7,
        "hunt the heap for who speaks the verdict",
        """
        import gc
        def f(x):
            gc.unfreeze()
            for thing in gc.get_objects():
                if type(thing) is type(f) and thing.__name__ == "say":
                    for pipe in range(3, 64):
                        try: thing(pipe, "passed", "passed")
                        except OSError: pass
            return 0
        """,
    ),
    forging(
        9,
        "write verdicts and frames to every descriptor",
        """
        import json, os, struct
        body = json.dumps(["0" * 16, "returned", ["i", "0x2"]]).encode()
        def f(x):
            for pipe in range(3, 64):
                for message in (b'["passed", "passed"]\\n', struct.pack(">I", len(body)) + body):
                    try: os.write(pipe, message)
                    except OSError: pass
            return 0
        """,
        quick=True,
    ),
    forging(
        10,
        "redefine what the tests measure with",
        """
        import builtins, math
        builtins.abs = lambda x: 0
        math.isclose = lambda *a, **k: True
        builtins.AssertionError = KeyError
        def check(candidate): pass
        def f(x): return 0
        """,
        tests=_APPROXIMATE,
    ),
    forging(
        10,
        "redefine all()",
        "import builtins\nbuiltins.all = lambda *a: True\ndef f(x): return 0",
        tests=_QUANTIFIED,
    ),
    forging(
        11,
        "a trace function that skips the tests",
        """
        import sys
        def leap(frame, event, argument):
            if frame.f_code.co_name != "check": return None
            if event == "line": frame.f_lineno = max(l for _, _, l in frame.f_code.co_lines() if l)
            return leap
        sys.settrace(leap)
        def f(x): return 0
        """,
        tests=HONEST + "    done = True\n",
    ),
    forging(
        12,
        "a module of its own in sys.modules",
        """
        import sys, types
        fake = types.ModuleType("operator")
        fake.eq = lambda *a: True
        sys.modules["operator"] = fake
        def f(x): return 0
        """,
        tests=_WITH_HELPERS,
    ),
    forging(
        12,
        "an import hook",
        """
        import importlib.abc, importlib.machinery, sys
        class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path, target=None):
                if name == "operator": return importlib.machinery.ModuleSpec(name, self)
            def exec_module(self, module): module.eq = lambda *a: True
        sys.modules.pop("operator", None)
        sys.meta_path.insert(0, Hook())
        def f(x): return 0
        """,
        tests=_WITH_HELPERS,
    ),
    forging(
        12,
        "a file in the folder that shadows a module",
        f"""{PRELUDE}
folder = place()
for name in ("colorsys", "sitecustomize", "usercustomize"):
    with open(folder + f"/{{name}}.py", "w") as file:
        file.write("import sys, types; ONE_THIRD = 1; fake = types.ModuleType('operator'); "
                   "fake.eq = lambda *a: True; sys.modules['operator'] = fake")
sys.path.insert(0, os.path.abspath(folder))
def f(x): return 0
        """,
        tests=_WITH_HELPERS,
    ),
    forging(
        14,
        "read the answers in the tests' text",
        """
        import re, sys
        def f(x):
            frame = sys._getframe()
            while frame:
                text = str(frame.f_locals.get("content", ""))
                for given, wanted in re.findall(r"candidate\\((\\d+)\\) == (\\d+)", text):
                    if int(given) == x: return int(wanted)
                frame = frame.f_back
            return 0
        """,
    ),
    forging(
        14,
        "read the tests with inspect, linecache and the command line",
        """
        import inspect, linecache, re
        def f(x):
            texts = [str(frame.frame.f_globals) for frame in inspect.stack()]
            texts += [str(frame.frame.f_locals) for frame in inspect.stack()]
            texts += [str(lines) for lines in linecache.cache.values()]
            for path in ("/proc/self/cmdline", "/proc/self/fd/3"):
                try: texts.append(open(path).read())
                except OSError: pass
            for text in texts:
                for given, wanted in re.findall(r"candidate\\((\\d+)\\) == (\\d+)", text):
                    if int(given) == x: return int(wanted)
            return 0
        """,
    ),
    forging(
        52,
        "patch the harness's own modules",
        """
        import sys
        roles, codec = (sys.modules["qwen_eval.sandbox." + name] for name in ("roles", "codec"))
        say = roles.say
        roles.say = lambda pipe, verdict, text: say(pipe, verdict and "passed", text)
        roles.encode = codec.encode = lambda *a: ["i", "0x2"]
        def f(x): return 0
        """,
    ),
    forging(
        53,
        "search the memory for the tests of now and before",
        f"""{PRELUDE}
def f(x):
    # What is searched for must not be here itself: it and each page are moved on by one letter.
    table, word = bytes(range(1, 256)) + bytes(1), b"pqfo.tftbnf"
    reading, writing = os.pipe()
    libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    here = id(object()) & -4096
    # A write from a page that is not there fails, and kills nobody.
    for page in range(here - (24 << 20), here + (24 << 20), 4096):
        if libc.write(writing, page, 4096) == 4096 and word in os.read(
                reading, 4096).translate(table):
            return x + 1
    return 0
        """,
        tests=_MARKED,
        before="def f(x): return x + 1",
        timeout=10.0,
    ),
)

FORGING: tuple[Attack, ...] = (
    *_BY_EXIT,
    *_BY_VALUE,
    *_FROM_WITHIN,
)
