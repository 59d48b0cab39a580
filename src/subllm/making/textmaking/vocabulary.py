"""What seed tasks ask for, and how (see tasks.py)."""

from __future__ import annotations

_ANY = (
    "Write a {language} function that groups and summarises {subject} and returns the result.",
    "Write a {language} function that validates {subject} and reports every problem found.",
    "Write a {language} class that stores {subject} and supports adding, removing and searching.",
    "Write a {language} program that parses a simple text format describing {subject}.",
    "Write a small {language} module of helper functions for {subject}.",
    "Write a {language} class that schedules work on {subject} by priority.",
    "Write a {language} implementation of a state machine for {subject}.",
    "Write a {language} function that merges two sorted collections of {subject}.",
    "Write {language} code that caches computed values about {subject} and evicts the oldest.",
    "Write a {language} program that simulates {subject} for a few steps and prints the state.",
    "Write a {language} function that formats {subject} as an aligned text table.",
    "Write {language} code that computes statistics (mean, median, extremes) over {subject}.",
    "Write {language} code that indexes {subject} by keyword and answers queries.",
    "Write a {language} tree or graph structure that relates {subject}, with a traversal.",
    "Write {language} code that detects anomalies and duplicates among {subject}.",
    "Write {language} code that converts {subject} between two representations.",
    "Write {language} code that applies a chain of filters to {subject}.",
    "Write {language} code that assigns {subject} to limited resources greedily.",
)

KINDS = {
    "python": (
        *_ANY,
        "Write a {language} command-line script with argparse that reports on {subject}.",
        "Write {language} dataclasses for {subject} with conversion to and from JSON.",
        "Write a {language} generator that streams {subject} from a CSV file in batches.",
        "Write {language} code that keeps {subject} in an sqlite3 database.",
        "Write an asyncio {language} program with workers that process {subject}.",
        "Write a small {language} class handling {subject} and unittest tests for it.",
        "Write a {language} decorator and a context manager that help with {subject}.",
        "Write a {language} regular-expression based extractor for {subject}.",
        "Write {language} code with an abstract base class and two implementations for {subject}.",
        "Write {language} code that uses collections and itertools to analyse {subject}.",
    ),
    "javascript": (
        *_ANY,
        "Write a {language} module for Node.js that reads {subject} from a JSON file.",
        "Write {language} async functions with promises that fetch and combine {subject}.",
        "Write a {language} event emitter that announces changes of {subject}.",
        "Write a {language} HTTP server with Node's http module that serves {subject}.",
        "Write {language} code using map, filter and reduce over {subject}.",
        "Write a {language} closure-based store with subscribe and dispatch for {subject}.",
        "Write a {language} generator function that pages through {subject}.",
        "Write {language} code that renders {subject} as an HTML string with escaping.",
        "Write a {language} class with private fields and getters for {subject}.",
        "Write {language} code that retries failing requests for {subject} with a delay.",
    ),
    "cpp": (
        *_ANY,
        "Write a {language} class template that holds {subject} and offers iterators.",
        "Write {language} code with a RAII wrapper that guards access to {subject}.",
        "Write {language} code using std::unordered_map and std::sort on {subject}.",
        "Write a {language} struct with overloaded operators for {subject}.",
        "Write a {language} program that reads {subject} from standard input and prints a report.",
        "Write {language} code with std::thread and a mutex that processes {subject}.",
        "Write {language} code with std::optional and std::variant that models {subject}.",
        "Write a {language} class hierarchy with virtual functions for {subject}.",
        "Write {language} code with std::unique_ptr that builds a tree of {subject}.",
        "Write {language} code with STL algorithms and lambdas over {subject}.",
    ),
    "java": (
        *_ANY,
        "Write a {language} record and a service class for {subject}.",
        "Write {language} code with streams and collectors over {subject}.",
        "Write a generic {language} class that holds {subject} and implements Iterable.",
        "Write {language} code with an interface and two implementations for {subject}.",
        "Write a {language} enum with behaviour for {subject} and a main method that uses it.",
        "Write {language} code with an ExecutorService that processes {subject}.",
        "Write {language} code with a builder for {subject}.",
        "Write {language} code that reads {subject} with BufferedReader and reports totals.",
        "Write {language} code with Optional and custom exceptions for {subject}.",
        "Write {language} code with an observer pattern for {subject}.",
    ),
}

TRAITS = {
    "python": (
        "Use type hints and a docstring for each function.",
        "Use only the standard library and document every function.",
        "Raise ValueError with a clear message on bad input and add docstrings.",
        "Include a short example under a main guard.",
        "Prefer small functions with docstrings.",
        "Handle empty input and write docstrings that explain arguments and return values.",
        "Keep it short and readable, with a docstring on every public function.",
    ),
    "javascript": (
        "Use modern syntax and a JSDoc comment for each function.",
        "Use no external packages.",
        "Throw errors with clear messages on bad input and add JSDoc comments.",
        "Show a short usage example at the end.",
        "Prefer small pure functions with comments.",
        "Handle empty input and use const and let.",
        "Export the public functions with module.exports.",
    ),
    "cpp": (
        "Use C++17 and a comment above each function.",
        "Use only the standard library and include every header needed.",
        "Throw std::invalid_argument on bad input and comment each function.",
        "Add a main function that shows its use.",
        "Prefer const references and small functions, with comments.",
        "Handle empty input; add a short main function.",
    ),
    "java": (
        "Use a Javadoc comment for each method.",
        "Use only the standard library, Java 17 and one public class.",
        "Throw IllegalArgumentException on bad input and add Javadoc comments.",
        "Add a main method that shows its use.",
        "Prefer small methods with short comments.",
        "Handle empty input; keep everything in one file with all imports.",
    ),
}

FORMS = (
    "Explain {topic} to a beginner.",
    "Write a short encyclopedia article about {topic}.",
    "Write a list of practical tips about {topic}, each with a reason.",
    "Write a question-and-answer page with four questions about {topic}.",
    "Write a friendly e-mail that introduces a colleague to {topic}.",
    "Compare two common views or approaches regarding {topic}.",
    "Describe a common misunderstanding about {topic} and correct it.",
    "Write a short dialogue between a teacher and a student about {topic}.",
)

OTHER_LANGUAGES = {
    "go": "Go",
    "rust": "Rust",
    "typescript": "TypeScript",
    "c": "C",
    "ruby": "Ruby",
    "kotlin": "Kotlin",
    "php": "PHP",
    "csharp": "C#",
    "sql": "SQL",
    "bash": "Bash",
    "html": "HTML and CSS",
    "yaml": "YAML",
}

OTHER_KINDS = _ANY[:12]

SPECIAL_KINDS = {
    "sql": (
        "Write SQL that creates tables for {subject} and three useful queries.",
        "Write an SQL query with joins and grouping about {subject}, with the tables it needs.",
    ),
    "bash": (
        "Write a Bash script that archives and reports on text files about {subject}.",
        "Write a Bash script with options that filters a CSV file of {subject}.",
    ),
    "html": (
        "Write an HTML page with CSS that shows {subject} in a table.",
        "Write an HTML form for editing {subject}, with labels and simple CSS.",
    ),
    "yaml": (
        "Write a commented YAML configuration file for a service that manages {subject}.",
        "Write an OpenAPI description in YAML of a service about {subject}.",
    ),
}
