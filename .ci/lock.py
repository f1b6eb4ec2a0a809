#!/usr/bin/env python3
"""Holds Cargo.lock against the bans, floors and sources of .ci/deny.toml, where cargo-deny is not installed."""

import re
import sys
import tomllib
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, without its pre-release."""
    return tuple(map(int, re.match(r"[\d.]+", version)[0].split(".")))


def main() -> int:
    packages = tomllib.loads((TOP / "Cargo.lock").read_text())["package"]
    rules = tomllib.loads((TOP / ".ci/deny.toml").read_text())["bans"]["deny"]
    found = []
    for rule in rules:
        name, _, bound = rule["crate"].partition(":<")
        for package in packages:
            if package["name"] == name and (not bound or numbers(package["version"]) < numbers(bound)):
                found.append(f"{name} {package['version']} is banned by {rule['crate']!r}")
    for package in packages:
        if not package.get("source", "registry+").startswith("registry+"):
            found.append(f"{package['name']} {package['version']} comes from {package['source']}")
    print("\n".join(found) or f"{len(packages)} packages: no ban, no floor and no source is broken")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
