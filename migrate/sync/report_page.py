"""The page about a sync for people: the verdict, the numbers, what is missing, what was removed."""

from __future__ import annotations

from collections.abc import Iterator

from migrate import software
from migrate.bundle.export_state import now
from migrate.number_text import bytes_words, count_words
from migrate.report.markup import Html, facts, joined, name, table, tag
from migrate.report.plots import moment
from migrate.report.style import STYLE
from migrate.sync.outcome import SyncOutcome

_SHOWN = 200


def page(of: SyncOutcome) -> bytes:
    """Return the page, UTF-8. Nothing is loaded and no script runs."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = joined(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            tag("title", "A bucket copied to a bucket"),
            tag("style", Html(STYLE)),
        ],
        "\n",
    )
    body = joined(_body(of), "\n")
    whole = f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'
    return whole.encode("utf-8", "backslashreplace")


def _body(of: SyncOutcome) -> Iterator[Html]:
    yield tag("h1", "A bucket copied to a bucket")
    yield tag("p", name(of.source), " → ", name(of.target), class_="soft")
    yield _verdict(of)
    yield facts(
        [
            ("Written", moment(now())),
            ("At the source", f"{count_words(of.listed)} {of.noun}, {bytes_words(of.listed_bytes)}"),
            ("As they were", count_words(of.same)),
            ("Copied", f"{count_words(of.copied)}, {bytes_words(of.copied_bytes)}"),
            ("There already", count_words(of.adopted)),
            *([("Tags, locks or ACL brought in step", count_words(of.amended))] if of.amended else []),
            ("Not wanted, or deleted meanwhile", count_words(of.excluded)),
            ("Missing", count_words(of.failed)),
            ("Only at the target", count_words(of.extra - of.deleted)),
            ("Removed at the target", count_words(of.deleted)),
            ("Rows of the loss ledger", count_words(of.losses)),
            ("Record", name(of.record)),
            ("Made by", software()),
        ]
    )
    yield from _proof(of)
    if of.damaged or of.reasons:
        yield tag("h2", "Not as it should be")
        yield joined(tag("p", name(line)) for line in (*of.damaged, *of.reasons))
    if of.gaps:
        yield tag("h2", "Not at the target")
        rows = ([name(gap.item), gap.disposition, name(gap.reason)] for gap in of.gaps[:_SHOWN])
        yield table(["Object", "", "Why"], rows)
        yield tag("p", f"gaps.parquet has all {count_words(len(of.gaps))}.", class_="soft")
    if of.settings:
        yield tag("h2", "The bucket's settings")
        yield table(["Setting", ""], ([name(what), name(said)] for what, said in sorted(of.settings.items())))
    if of.removed:
        yield tag("h2", "Removed at the target")
        yield table(["Object", "Bytes"], ([name(it.key), it.size_bytes] for it in of.removed[:_SHOWN]))
        yield tag("p", f"deleted/ has all {count_words(of.deleted)}.", class_="soft")


def _verdict(of: SyncOutcome) -> Html:
    if of.proof is not None:
        return _said("Equal", f"Both sides were equal at {of.proof.moment}.", bad=False)
    if of.complete:
        return _said("Complete", "Every object that is wanted is at the target.", bad=False)
    why = of.unproven or f"{count_words(of.failed + len(of.damaged))} objects are not there as they should be"
    return _said("Incomplete", why + ".", bad=True)


def _said(word: str, sentence: str, *, bad: bool) -> Html:
    return tag(
        "div", tag("strong", word), tag("p", name(sentence)), class_="verdict bad" if bad else "verdict"
    )


def _proof(of: SyncOutcome) -> Iterator[Html]:
    proof = of.proof
    if proof is None:
        return
    every = ", with all versions" if proof.history and not proof.choice else ""
    yield tag("h2", "Equal at one moment" + every)
    yield tag(
        "p",
        "Before and after that moment both buckets were listed from beginning to end: each object of the source was"
        " what had been copied, each one of the target what had been written, and neither had anything else.",
    )
    yield facts(
        [
            ("Moment", moment(proof.moment)),
            *([("Of what was wanted", name(proof.choice))] if proof.choice else []),
            (of.noun.capitalize(), count_words(proof.objects)),
            ("Bytes", count_words(proof.size_bytes)),
            ("The same ETag on both sides", count_words(proof.by_etag)),
            ("Known by the record", count_words(proof.by_record)),
            ("SHA-256 of the source's listing", tag("span", proof.source_digest, class_="digest")),
            ("SHA-256 of the target's listing", tag("span", proof.target_digest, class_="digest")),
        ]
    )
