"""Answers that name real people, places on the web or anything like a key.

Given names alone ("Alice") and the usual placeholders ("John Doe") stay; a given name
with a surname is taken for somebody real, since a model recites authors and inventors.
"""

from __future__ import annotations

import re

_GIVEN = (
    "Abraham Ada Adam Adele Agatha Aidan Alan Albert Alberto Aldous Alessandro Alex Alexander "
    "Alexandre Alfred Alice Amanda Amelia Andrew Andy Angela Anna Anne Anthony Antonio Aristotle "
    "Arthur Barack Barbara Benjamin Bernard Bernhard Bertrand Beyonce Bill Billy Bjarne Bob Brad "
    "Brian Bruce Carl Carol Catherine Charles Charlie Charlotte Chris Christian Christopher Clara "
    "Claude Cristiano Dan Daniel Dave David Dennis Diana Donald Douglas Ed Edgar Edmund Edsger "
    "Edward Edwin Elizabeth Ella Elon Elvis Emily Emma Eric Ernest Eva Eve Evan Fiona Francis "
    "Francois Frank Franklin Franz Freddie Frederick Friedrich Gabriel Galileo George Gerhard "
    "Gordon Grace Greta Guido Gustav Hans Harper Harry Harriet Harold Heinrich Helen Henry Herman "
    "Hermann Homer Howard Hugo Ian Ida Isaac Isabella Jack Jackie Jacob James Jane Jason Jay Jeff "
    "Jeffrey Jennifer Jerome Jesse Jim Jimmy Joan Joe Johann Johannes John Johnny Jon Jonas "
    "Jonathan Jorge Jose Joseph Joshua Juan Julia Julian Julius Karl Kate Katherine Kazuo Keith "
    "Kelly Ken Kenneth Kevin Kurt Larry Laura Lawrence Lee Lena Leo Leon Leonard Leonardo Lewis "
    "Liam Linda Linus Lionel Lisa Louis Louisa Lucas Lucy Ludwig Luke Madonna Magnus Marcel "
    "Margaret Maria Marie Marilyn Mario Mark Martin Mary Matt Matthew Max Maya Melissa Michael "
    "Michelle Miguel Mike Mohamed Muhammad Nancy Napoleon Nathan Neil Nelson Nicholas Nick Nicolas "
    "Niklaus Nikola Noah Noam Nora Oliver Olivia Oprah Oscar Otto Pablo Patricia Patrick Paul "
    "Paulo Pedro Peter Phil Philip Pierre Rachel Ralph Ray Rebecca Rene Richard Rob Robert "
    "Roberto Robin Roger Ronald Rosa Rose Ruth Ryan Sally Sam Samuel Sara Sarah Scott Sean Serena "
    "Sergey Sigmund Simon Sofia Sophia Stan Stephen Steve Steven Stewart Susan Sylvia Taylor Ted "
    "Terry Theodore Thomas Tim Timothy Tina Toby Todd Tom Tony Tyler Umberto Usain Victor Victoria "
    "Vincent Virginia Vladimir Walt Walter Warren Wayne Whitney Will William Winston Wolfgang Zoe"
)
_FULL_NAME = re.compile(
    rf"\b({'|'.join(_GIVEN.split())})\s(?:[A-Z]\.\s?)*(?:(?:van|von|de|da|di|del)\s)*([A-Z][a-z']+)\b"
)
_INITIALS = re.compile(r"\b[A-Z]\.\s?(?:[A-Z]\.\s?)+[A-Z][a-z]+\b|\b[A-Z]\. [A-Z][a-z]{3,}\b")
_KNOWN = re.compile(
    r"\b(Shakespeare|Gutenberg|Einstein|Newton|Darwin|Turing|Knuth|Dijkstra|Torvalds|Beethoven|"
    r"Mozart|Picasso|Tolkien|Rowling|Orwell|Hemingway|Austen|Dickens|Tolstoy|Fitzgerald|Trump|"
    r"Obama|Biden|Clinton|Hitler|Stalin|Musk|Gates|Bezos|Zuckerberg|Nightingale|Richter|Mercalli|"
    r"Copernicus|Galilei|Pasteur|Fleming|Jenner|Pavlov|Freud|Keynes|Condorcet|Arrow's|Dvorak|"
    r"Hoare|Stroustrup|Rivest|Shamir|Adleman|Diffie|Hellman|Beyoncé|Messi|Ronaldo|Federer)\b"
)
_PLACEHOLDERS = frozenset({"Doe", "Smith", "Public", "Roe", "Johnson", "Brown"})
# After a given name that is a word as well ("Will Be", "Mark As", "Max Value") no surname.
_NO_SURNAME = re.compile(
    r"^(A|An|And|As|At|Be|Book|Box|Count|Data|Date|From|Id|In|Is|List|Map|Name|Not|Number|Of|On|"
    r"Or|Order|Price|Read|Score|Size|Speed|Team|Temp|Temperature|The|Time|To|Value|Weight|With)$"
)
_URL = re.compile(r"(?:https?|ftp)://([^\s/\"'<>`)]+)|\b(www\.[^\s/\"'<>`)]+)", re.IGNORECASE)
_OPEN_HOSTS = re.compile(
    r"^(?:[\w-]+\.)*(?:example(?:\.com|\.org|\.net)?|localhost|w3\.org|test|invalid)(?::\S*)?$"
    r"|^(?:127\.0\.0\.1|0\.0\.0\.0|192\.168\.[\d.]+|10\.[\d.]+)(?::\S*)?$|^[{$%]",
    re.IGNORECASE,
)
_MAIL = re.compile(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)")
_KEY = re.compile(
    r"-----BEGIN|\bAKIA[0-9A-Z]{12,}|\b(?:sk|pk|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{16,}"
    r"|\beyJ[\w-]{16,}|\bAIza[\w-]{20,}|\b[0-9a-fA-F]{32,}\b|[A-Za-z0-9+/]{60,}={0,2}"
)


def private(text: str) -> str | None:
    """The reason for rejecting a text that holds such data, or None."""
    if any(not _OPEN_HOSTS.match(m[1] or m[2]) for m in _URL.finditer(text)):
        return "address on the web"
    if any(not _OPEN_HOSTS.match(m[1]) for m in _MAIL.finditer(text)):
        return "e-mail address"
    if _KEY.search(text):
        return "key"
    return "person" if _person(text) else None


def _person(text: str) -> bool:
    if _KNOWN.search(text) or _INITIALS.search(text):
        return True
    return any(
        m[2] not in _PLACEHOLDERS and not _NO_SURNAME.match(m[2]) for m in _FULL_NAME.finditer(text)
    )
