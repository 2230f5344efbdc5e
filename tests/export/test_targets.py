"""A target is a file in one folder, named in the registry there; nothing else lists targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfprune.export import targets
from tfprune.export.storage import STORAGES
from tfprune.export.targets import registry
from tfprune.shell import cli

FOLDER = Path(targets.__file__).parent


def test_every_file_with_a_target_is_registered_and_described():
    files = [p.stem for p in FOLDER.glob("*.py") if "\nTARGET = Target(" in p.read_text()]
    assert sorted(files) == sorted(name.replace("-", "_") for name in registry.NAMES)
    for name in registry.NAMES:
        target = registry.find_target(name)
        assert target.name == name and set(target.storages) <= set(STORAGES)
        assert f"\n{name}\n    " in targets.__doc__


@pytest.mark.parametrize("name", ["fastest", "Dense", "registry", "mobile_sparse", "", None, 3])
def test_no_other_name_finds_a_target(name):
    with pytest.raises(ValueError, match=r"`target` must be one of .*'dense'.*Received: "):
        registry.find_target(name)


def test_a_new_target_is_an_option_of_the_shell(monkeypatch, capsys):
    def help_text():
        with pytest.raises(SystemExit):
            cli.main(["export", "--help"])
        return capsys.readouterr().out

    assert "{" + ",".join(registry.NAMES) + "}" in help_text()
    monkeypatch.setattr(registry, "NAMES", (*registry.NAMES, "new-form"))
    assert "new-form" in help_text()
