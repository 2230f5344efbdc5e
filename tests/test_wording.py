"""Names, docstrings and errors of the package, held to the project's words; each rule bites."""

from __future__ import annotations

import pytest
import wording
from architecture import Source
from test_architecture import PACKAGE, complain

import tfprune
from tfprune import protocols

BASES = frozenset(
    {
        *("Method", "Scored", "PruningSchedule", "TargetedSchedule"),
        *(name for name in dir(protocols) if name[0].isupper()),
    }
)
RECEIVED = 0.9  # share of errors about an argument that say what was received


@pytest.mark.parametrize("rule", [wording.dropped_names, wording.fragments])
def test_package_keeps_the_words(rule):
    assert complain(rule, PACKAGE) == []


def test_errors_say_what_was_received():
    texts = [(s.path, line, text) for s in PACKAGE for line, text in wording.refusals(s)]
    silent = [f"{path}:{line}" for path, line, text in texts if "Received" not in text]
    assert len(texts) > 150 and len(silent) <= (1 - RECEIVED) * len(texts), silent


def test_public_functions_describe_their_arguments():
    names = frozenset({*tfprune.__all__, *tfprune.export.__all__, *tfprune.ops.__all__})
    base = wording.methods_of(PACKAGE, BASES) | {"get_config", "from_config"}
    functions = [
        (f"{source.path}: {name}", node)
        for source in PACKAGE
        for name, node in wording.public_functions(source, names - {"bands", "layers"})
        if not _overrides(name, base)
    ]
    assert len(functions) > 35
    assert [name for name, node in functions if not wording.described(node)] == []


def _overrides(name: str, base: frozenset[str]) -> bool:
    """Whether a method is described by the class that it comes from, here or in Keras."""
    cls, _, method = name.rpartition(".")
    of_base = method in base and cls not in BASES
    return of_base or method == "from_config" or method.startswith("on_")


BROKEN = [
    (wording.dropped_names, "def f():\n    found = 1"),
    (wording.dropped_names, "def f(number): pass"),
    (wording.dropped_names, "class Unfit: pass"),
    (wording.dropped_names, "for one in x: pass"),
    (wording.fragments, '"""Of a PAD, [4, 2]."""'),
    (wording.fragments, 'def f():\n    """See the class."""'),
]


@pytest.mark.parametrize(("rule", "text"), BROKEN)
def test_rule_bites(rule, text):
    assert list(rule(Source("tfprune/a.py", text)))


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ('def f(x):\n    """Do.\n\n    Args:\n        x: a tensor.\n    """', True),
        ('def f(x):\n    """Double `x`."""', True),
        ('def f(x):\n    """Do."""', False),
        ('class f:\n    def g(self, x):\n        """Do."""', False),
    ],
)
def test_arguments_are_seen(text, described):
    ((_, node),) = wording.public_functions(Source("tfprune/a.py", text), frozenset({"f"}))
    assert wording.described(node) == described
