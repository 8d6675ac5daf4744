"""What became known after the seal: taken from what ``verify`` and ``restore`` say with ``--json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from migrate.bundle.findings import Finding
from migrate.bundle.table_comparison import TableDigest
from migrate.errors import UsageError
from migrate.report.facts import Checked, Later

_STEP = "give files that run, verify or restore wrote with --json, for this bundle"


def add_result(later: Later, command: str, result: Mapping[str, Any], bundle: str) -> Later:
    """Return ``later`` with one command's result. Raises ``UsageError`` for a result of another bundle, or of a command
    from which nothing is to be learnt.
    """
    if result.get("bundle") != bundle:
        bundle_named = result.get("bundle")
        raise UsageError(
            f"a result of {command} is of bundle {bundle_named}, not of {bundle}", next_step=_STEP
        )
    try:
        if command == "verify":
            return _verified(later, result)
        if command == "restore":
            return _restored(later, result)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise UsageError(f"a result of {command} cannot be read ({exc!r})", next_step=_STEP) from exc
    raise UsageError(f"nothing is learnt from {command}", next_step=_STEP)


def _verified(later: Later, result: Mapping[str, Any]) -> Later:
    moment = str(result["at"])
    check_name = f"verify, level {result['level']}, at {result['location']}"
    checks = [Checked(check_name, moment, _findings(result["findings"]))]
    destination, compared = dict(later.destination), dict(later.compared)
    for comparison in result["compared"]:
        if not comparison["findings"] and not comparison.get("left_out"):
            compared[str(comparison["source"])] = moment
        check_name = f"{comparison['source']} compared with {comparison['url']}"
        checks.append(
            Checked(
                check_name,
                moment,
                _findings(comparison["findings"]),
                _sentences(comparison.get("left_out", ())),
            )
        )
        destination |= _digests(comparison["tables"])
    signatures = result.get("signatures", {})
    for signer in signatures.get("signers", ()):
        known = f", known as {signer['known_as']}" if signer["known_as"] else ""
        checks.append(Checked(f"signature of {signer['fingerprint']}{known}", moment))
    if wrong := signatures.get("findings"):
        checks.append(Checked("signatures", moment, _findings(wrong)))
    parquet = {**later.parquet, **_digests(result["tables"])}
    return replace(
        later,
        checks=[*later.checks, *checks],
        parquet=parquet,
        destination=destination,
        compared=compared,
    )


def _restored(later: Later, result: Mapping[str, Any]) -> Later:
    moment = str(result["at"])
    checks, destination, compared = [], dict(later.destination), dict(later.compared)
    for outcome in result["restored"]:
        if outcome.get("equal"):
            compared[str(outcome["source"])] = moment
        check_name = restore_name(outcome["source"], outcome["url"])
        findings, left_out = _sentences(outcome["findings"]), _sentences(outcome.get("left_out", ()))
        checks.append(Checked(check_name, moment, findings, left_out))
        destination |= _digests(outcome["tables"])
    return replace(later, checks=[*later.checks, *checks], destination=destination, compared=compared)


def restore_name(source: str, destination: str) -> str:
    """Return what the check of a restore is called."""
    return f"{source} restored to {destination}"


def _sentences(values: Sequence[Any]) -> list[str]:
    return [str(value) for value in values]


def _findings(values: Sequence[Mapping[str, Any]]) -> list[Finding]:
    return [
        Finding(
            str(finding_value["key"]),
            str(finding_value["what"]),
            str(finding_value["expected"]),
            str(finding_value["found"]),
        )
        for finding_value in values
    ]


def _digests(values: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], TableDigest]:
    table_digests = [
        TableDigest(str(v["source"]), str(v["schema"]), str(v["name"]), int(v["rows"]), str(v["digest"]))
        for v in values
    ]
    return {(digest.source, digest.schema, digest.name): digest for digest in table_digests}
