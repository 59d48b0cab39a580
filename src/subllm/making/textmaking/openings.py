"""How files begin that the base goes on with, and what it is asked about code it wrote."""

from __future__ import annotations

TITLES = (
    "Grouping and summaries",
    "Checks that report every problem",
    "A small store with search",
    "A parser of a simple text format",
    "Helper functions",
    "A scheduler by priority",
    "A state machine",
    "Merging and sorting",
    "A cache with eviction",
    "A step by step simulation",
    "Formatting as a text table",
    "Statistics",
    "An index by keyword",
    "Searching and counting",
    "Finding duplicates and outliers",
    "Converting between representations",
    "A chain of filters",
    "Greedy assignment",
    "Recursive helpers",
    "String utilities",
    "Comparing and ranking",
    "Reading and writing",
)

FILES = {
    "python": (
        '"""{title}: {subject}."""\n\n',
        '"""{title}: {subject}."""\n\nfrom __future__ import annotations\n\n'
        "from dataclasses import dataclass\n",
        "# {title}: {subject}.\n\nfrom typing import Dict, List, Optional, Tuple\n\n\ndef ",
        '"""{title}: {subject}."""\n\nfrom collections import Counter, defaultdict\n\n\ndef ',
        "# {title}: {subject}\nimport math\nimport re\n\n\ndef ",
        '#!/usr/bin/env python3\n"""{title}: {subject}."""\n\nimport argparse\nimport sys\n',
        '"""{title}: {subject}."""\n\n\nclass ',
        "import unittest\n\n# {title}: {subject}, with tests.\n\n\ndef ",
    ),
    "javascript": (
        "// {title}: {subject}.\n\n",
        "'use strict';\n\n/**\n * {title}: {subject}.\n */\n",
        "/**\n * {title}: {subject}.\n */\n\n/**\n * ",
        "// {title}: {subject}.\n\nfunction ",
        "// {title}: {subject}.\n\nclass ",
        "// {title}: {subject}.\n\nconst ",
        "// {title}: {subject}.\nconst fs = require('fs');\n\n/**\n * ",
        "/* {title}: {subject}. */\n\nexport function ",
    ),
    "cpp": (
        "// {title}: {subject}.\n#include <iostream>\n#include <string>\n#include <vector>\n\n",
        "// {title}: {subject}.\n#include <algorithm>\n#include <map>\n#include <string>\n"
        "#include <vector>\n\n",
        "/*\n * {title}: {subject}.\n */\n#include <iostream>\n#include <vector>\n"
        "#include <string>\n#include <unordered_map>\n#include <algorithm>\n"
        "using namespace std;\n\n",
        "// {title}: {subject}.\n#include <cmath>\n#include <numeric>\n#include <stdexcept>\n"
        "#include <string>\n#include <vector>\n\n/// ",
        "// {title}: {subject}.\n#include <iostream>\n#include <memory>\n#include <optional>\n"
        "#include <string>\n#include <vector>\n\nclass ",
        "// {title}: {subject}.\n#include <iostream>\n#include <map>\n#include <set>\n"
        "#include <string>\n#include <vector>\n\nstruct ",
    ),
    "java": (
        "import java.util.*;\n\n/**\n * {title}: {subject}.\n */\npublic class ",
        "// {title}: {subject}.\nimport java.util.ArrayList;\nimport java.util.HashMap;\n"
        "import java.util.List;\nimport java.util.Map;\n\npublic class ",
        "import java.util.*;\nimport java.util.stream.*;\n\n/**\n * {title}: {subject}.\n */\n"
        "public final class ",
        "import java.util.*;\nimport java.lang.*;\n\n// {title}: {subject}.\n"
        "class Solution {{\n    /**\n     * ",
        "import java.util.*;\n\n/** {title}: {subject}. */\npublic record ",
    ),
}

TALKS = (
    "{ask} Explain briefly how it works.",
    "How would I do this in {language}? {ask}",
    "{ask} First describe your approach in two or three sentences, then give the code.",
    "I am learning {language}. {ask} Please keep it short and explain the important lines.",
)

EDITS = (
    "Add a comment or docstring to every function of this code.",
    "Add checks of the arguments to this code, with clear errors on bad input.",
    "Make this code shorter and easier to read without changing what it does.",
    "Rename variables in this code so that their names say what they hold.",
    "Add one more useful function to this code.",
    "Split the longest function of this code into smaller ones.",
    "Handle empty input in this code.",
    "Make this code faster where that is possible.",
    "Add a function that sorts the results, and use it.",
    "Replace magic numbers in this code by named constants.",
    "Find a possible bug in this code and fix it.",
    "Return results instead of printing them in this code.",
)

TESTS = {
    "python": "Write unittest tests for this code; "
    "import what you need from the module `{module}`.",
    "javascript": "Write tests for this code with Node's assert module; "
    "require it from './{module}'.",
    "cpp": "Write a main function with assert calls that tests this code. "
    "Do not repeat the code itself.",
    "java": "Write a class with a main method that tests this code and throws an AssertionError "
    "where a result is wrong. Do not repeat the code itself.",
}
