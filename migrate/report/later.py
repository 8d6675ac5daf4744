"""What became known after the seal: taken from what ``verify`` and ``restore`` say with ``--json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from migrate.bundle.findings import Finding
from migrate.bundle.table_comparison import TableDigest
from migrate.errors import UsageError
from migrate.report.facts import Checked, Later

_STEP = "give files that verify or restore wrote with --json, for this bundle"


def learn(later: Later, command: str, result: Mapping[str, Any], bundle: str) -> Later:
    """Return ``later`` with one command's result. Raises ``UsageError`` for a result of another bundle, or of a command
    from which nothing is to be learnt.
    """
    if result.get("bundle") != bundle:
        found = result.get("bundle")
        raise UsageError(f"a result of {command} is of bundle {found}, not of {bundle}", next_step=_STEP)
    try:
        if command == "verify":
            return _verified(later, result)
        if command == "restore":
            return _restored(later, result)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise UsageError(f"a result of {command} cannot be read ({exc!r})", next_step=_STEP) from exc
    raise UsageError(f"nothing is learnt from {command}", next_step=_STEP)


def _verified(later: Later, result: Mapping[str, Any]) -> Later:
    at = str(result["at"])
    what = f"verify, level {result['level']}, at {result['location']}"
    checks = [Checked(what, at, _findings(result["findings"]))]
    destination = dict(later.destination)
    for one in result["compared"]:
        what = f"{one['source']} compared with {one['url']}"
        checks.append(Checked(what, at, _findings(one["findings"]), _sentences(one.get("left_out", ()))))
        destination |= _digests(one["tables"])
    signatures = result.get("signatures", {})
    for signer in signatures.get("signers", ()):
        known = f", known as {signer['known_as']}" if signer["known_as"] else ""
        checks.append(Checked(f"signature of {signer['fingerprint']}{known}", at))
    if wrong := signatures.get("findings"):
        checks.append(Checked("signatures", at, _findings(wrong)))
    parquet = {**later.parquet, **_digests(result["tables"])}
    return replace(later, checks=[*later.checks, *checks], parquet=parquet, destination=destination)


def _restored(later: Later, result: Mapping[str, Any]) -> Later:
    at = str(result["at"])
    checks, destination = [], dict(later.destination)
    for one in result["restored"]:
        what = f"{one['source']} restored to {one['url']}"
        findings, left_out = _sentences(one["findings"]), _sentences(one.get("left_out", ()))
        checks.append(Checked(what, at, findings, left_out))
        destination |= _digests(one["tables"])
    return replace(later, checks=[*later.checks, *checks], destination=destination)


def _sentences(values: Sequence[Any]) -> list[str]:
    return [str(value) for value in values]


def _findings(values: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding(str(one["key"]), str(one["what"]), str(one["expected"]), str(one["found"])) for one in values
    ]


def _digests(values: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], TableDigest]:
    found = [
        TableDigest(str(v["source"]), str(v["schema"]), str(v["name"]), int(v["rows"]), str(v["digest"]))
        for v in values
    ]
    return {(one.source, one.schema, one.name): one for one in found}
