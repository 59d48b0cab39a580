"""Code by language, whole pieces and the short prefixes that an editor completes."""

from __future__ import annotations

WHOLE = {
    "python": '''import os
from typing import Iterable

class Cache:
    """Keeps things."""

    def __init__(self, size: int = 3) -> None:
        self.items = {}

    def get(self, key):
        return self.items.get(key) if key is not None else None
''',
    "java": """package com.example.app;

import java.util.List;

public class Main {
    private final List<String> names;

    @Override
    public String toString() {
        return String.join(", ", names);
    }

    public static void main(String[] args) {
        System.out.println("hi");
    }
}
""",
    "cpp": """#include <vector>
#include <iostream>

template <typename T>
T sum(const std::vector<T>& values) {
    T total{};
    for (const auto& v : values) total += v;
    return total;
}

int main() { std::cout << sum<int>({1, 2}) << "\\n"; }
""",
    "javascript": """import { readFile } from 'fs';

export async function load(path) {
  const text = await new Promise((resolve) => readFile(path, resolve));
  return JSON.parse(text).map((item) => item.id === undefined ? null : item.id);
}
""",
    "typescript": """interface User {
  id: number;
  name?: string;
}

export const byName = (users: User[]): Map<string, User> => {
  const found = new Map<string, User>();
  users.forEach((u) => { found.set(u.name ?? '', u); });
  return found;
};
""",
    "c": """#include <stdio.h>
#include <stdlib.h>

struct node { int value; struct node *next; };

static int count(struct node *head) {
    int n = 0;
    while (head != NULL) { n++; head = head->next; }
    return n;
}
""",
    "rust": """use std::collections::HashMap;

pub fn count(words: &[String]) -> HashMap<&str, usize> {
    let mut found = HashMap::new();
    for w in words { *found.entry(w.as_str()).or_insert(0) += 1; }
    found
}
""",
    "go": """package main

import "fmt"

func main() {
	names := []string{"a", "b"}
	for i, n := range names {
		fmt.Println(i, n)
	}
}
""",
}
SERVED_BY = {"typescript": "javascript", "c": "cpp"}  # nearest relatives

PREFIXES = [
    ("def fib(n):\n    ", "python"),
    ("import numpy as np\n\n", "python"),
    ("class Stack:\n    def push(self, x):\n        ", "python"),
    ("for i in range(10):\n    ", "python"),
    ("public class Fib {\n    public static int fib(int n) {\n        ", "java"),
    ("import java.util.*;\n\n", "java"),
    ("    private final Map<String, Integer> counts = new HashMap<>();\n", "java"),
    ("#include <string>\n\n", "cpp"),
    ("std::vector<int> v;\nv.", "cpp"),
    ("int main(int argc, char **argv) {\n  ", "cpp"),
    ("function fib(n) {\n  ", "javascript"),
    ("const add = (a, b) => ", "javascript"),
    ("const fs = require('fs');\n", "javascript"),
    ("export default class App extends React.Component {\n", "javascript"),
    ("fn fib(n: u64) -> u64 {\n    ", "rust"),
    ("package main\n\nfunc fib(n int) int {\n", "go"),
    ("<|fim_prefix|>def fib(n):\n    <|fim_suffix|>\n<|fim_middle|>", "python"),
    ("<|fim_prefix|>#include <map>\nint f() {<|fim_suffix|>}<|fim_middle|>", "cpp"),
    ("<fim_prefix>const x = require('x');\n<fim_suffix><fim_middle>", "javascript"),
]

UNCLEAR = ["", "\n\n", "x", "x = 1", "hello world, how are you?", "{", "}", "return x;", "42"]
