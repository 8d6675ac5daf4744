"""A bundle's tree at its location: made once after the seal, kept in three small files under ``sig/``.

``sig/tree.json`` has the seed of the salts, size and root hash. ``sig/tree-256.bin`` has one node for each 256 leaves,
so that a proof needs no more than the leaves next to its own. ``sig/checkpoint`` is the signed root.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from migrate.bundle import canonical_json, layout
from migrate.bundle.findings import Finding
from migrate.bundle.reader import BundleReader, require_files
from migrate.custody.log import custody_log, events
from migrate.custody.signing import bundle_signatures
from migrate.custody.signing.allowed_signers import Trust
from migrate.custody.signing.bundle_signatures import root_of
from migrate.custody.signing.keys import PublicKey, Signer
from migrate.custody.tree import checkpoint, leaves, merkle_tree
from migrate.custody.tree.checkpoint import Checkpoint
from migrate.custody.tree.inclusion_proof import Proof
from migrate.errors import AlreadyExistsError, ChangedError, DamageError, GoneError, UsageError, in_words
from migrate.storage.api import Store

VERSION = 1
_MAX_BYTES = 4096
_ROOT = re.compile(r"[0-9a-f]{64}")


class Tree(Struct, frozen=True):
    """What is kept of a tree. ``root`` is the bundle's, ``hash`` the tree's own."""

    bundle: str
    root: str
    seed: bytes
    size: int
    hash: bytes
    nodes: bytes


def store_tree(store: Store, signers: Sequence[Signer]) -> Checkpoint:
    """Make the tree of the sealed bundle where there is none of it yet, and let every key sign its root. One that lies
    there is made again and compared, unless these keys have signed it: whoever may write there can put any, and what
    its leaves say would be proved by these signatures.

    Raises ``DamageError`` where index or catalog cannot be read.
    """
    tree = _stored_tree(store, [signer.public for signer in signers])
    plain = _unsigned(tree)
    while True:
        etag, earlier = _checkpoint(store)
        signed = earlier if earlier is not None and earlier.body == plain.body else plain
        for signer in signers:
            signed = signed.signed(signer)
        try:
            if etag is None:
                store.create(layout.CHECKPOINT, signed.encode())
            elif earlier != signed:
                store.replace(layout.CHECKPOINT, signed.encode(), etag=etag)
        except (AlreadyExistsError, ChangedError):  # somebody else has signed meanwhile
            continue
        return signed


def _stored_tree(store: Store, by: Sequence[PublicKey]) -> Tree:
    """Return the bundle's tree, made where there is none. Where two runs make one at once, the first one's salts
    hold, and the nodes, which either may have written, are made again where they are of others.
    """
    root = root_of(store)
    while True:
        kept_tree = _kept(store)
        matching_tree = kept_tree if kept_tree is not None and kept_tree.root == root else None
        if matching_tree is not None and _is_signed(store, matching_tree, by):
            return matching_tree
        new_tree = build_tree(store, matching_tree.seed if matching_tree else b"")
        if new_tree == matching_tree:
            return new_tree
        store.put(layout.TREE_NODES, new_tree.nodes)
        try:
            if kept_tree is None:
                store.create(layout.TREE, _encode(new_tree))
            else:
                store.put(layout.TREE, _encode(new_tree))
        except AlreadyExistsError:
            continue
        if _kept(store) == new_tree:
            return new_tree


def _is_signed(store: Store, tree: Tree, by: Sequence[PublicKey]) -> bool:
    """Tell whether a tree is in order, and its root is signed by all these keys."""
    signed = _checkpoint(store)[1]
    return (
        signed is not None
        and signed.body == _unsigned(tree).body
        and len(signed.signers(by)) == len(by)
        and merkle_tree.top(tree.nodes) == tree.hash
    )


def _unsigned(tree: Tree) -> Checkpoint:
    return Checkpoint(tree.bundle, tree.size, tree.hash, tree.root)


def build_tree(store: Store, seed: bytes) -> Tree:
    """Compute the tree from the index and the catalog; with a new seed unless one is given."""
    reader = BundleReader(store)
    seed = seed or secrets.token_bytes(leaves.SEED_BYTES)
    nodes, waiting, size = bytearray(), bytearray(), 0
    group_bytes = merkle_tree.GROUP * merkle_tree.SIZE
    for batch in leaves.leaf_batches(reader, seed):
        size += len(batch)
        waiting += merkle_tree.leaf_hashes(batch)
        ready = len(waiting) // group_bytes * group_bytes
        nodes += merkle_tree.grouped(bytes(waiting[:ready]))
        del waiting[:ready]
    nodes += merkle_tree.grouped(bytes(waiting))
    return Tree(reader.info.id, root_of(store), seed, size, merkle_tree.top(bytes(nodes)), bytes(nodes))


def read(store: Store) -> tuple[Tree, Checkpoint]:
    """Return the tree that is kept and its checkpoint. Raises ``UsageError`` where there is none, ``DamageError``,
    ``GoneError`` where nothing is.
    """
    tree, signed = _kept(store), _checkpoint(store)[1]
    if tree is None or signed is None:
        require_files(store)
        raise UsageError(
            f"the bundle at {store.location} has no tree for proofs", next_step="moveout sign makes one"
        )
    return tree, signed


def prove(store: Store, is_asked: Callable[[dict[str, object]], bool], needle: str = "") -> Iterator[Proof]:
    """Yield the proof of every item that is asked for. ``needle`` stands in the text of each of them, so that not all
    need be read. Raises ``UsageError`` where there is no tree, ``DamageError`` where it does not fit the bundle.
    """
    tree_and_checkpoint = read(store)
    first, group = 0, []
    for batch in leaves.unsalted(BundleReader(store)):
        group += batch
        while len(group) >= merkle_tree.GROUP:
            yield from _prove(tree_and_checkpoint, group[: merkle_tree.GROUP], first, is_asked, needle)
            del group[: merkle_tree.GROUP]
            first += merkle_tree.GROUP
    yield from _prove(tree_and_checkpoint, group, first, is_asked, needle)


def _prove(
    tree_and_checkpoint: tuple[Tree, Checkpoint],
    group: Sequence[str],
    first: int,
    is_asked: Callable[[dict[str, object]], bool],
    needle: str,
) -> Iterator[Proof]:
    chosen = [index for index, text in enumerate(group) if needle in text and is_asked(leaves.decode(text))]
    if not chosen:
        return
    tree, signed = tree_and_checkpoint
    salted = leaves.salted(group, tree.seed, first)
    hashes = merkle_tree.leaf_hashes(salted)
    number = first // merkle_tree.GROUP
    if merkle_tree.top(hashes) != tree.nodes[number * merkle_tree.SIZE : (number + 1) * merkle_tree.SIZE]:
        raise DamageError(layout.TREE_NODES, expected="the nodes of this bundle's tree", found="others")
    above = merkle_tree.path(tree.nodes, number)
    for index in chosen:
        yield Proof(salted[index], first + index, [*merkle_tree.path(hashes, index), *above], signed)


class CheckedSigners(Struct, frozen=True):
    """Who signed the bundle, each by the name that a list had for the key then, and what is wrong with it."""

    by: Sequence[tuple[PublicKey, str | None]]
    findings: Sequence[Finding]


def check_signed(store: Store, trust: Trust | None, *, deep: bool) -> CheckedSigners:
    """Check all signatures at a location, and the tree like ``check``. With ``trust`` a key of its list must have
    signed the bundle.
    """
    signed = bundle_signatures.signatures(store)
    signers = signed.of(layout.TAG_MANIFEST)
    times = events.signing_times(custody_log.read(store), root_of(store), trust) if trust else {}
    findings = [
        *signed.findings,
        *check(store, list(dict.fromkeys([*(trust.keys if trust else ()), *signers])), deep=deep),
        *(trust.missing(signers, layout.TAG_MANIFEST, times) if trust else ()),
    ]
    names = (trust.name(public, times.get(public.fingerprint)) if trust else None for public in signers)
    return CheckedSigners(list(zip(signers, names, strict=True)), findings)


def check(store: Store, known: Sequence[PublicKey], *, deep: bool) -> list[Finding]:
    """Check the tree that is kept against the bundle; ``deep`` makes it again from index and catalog. Nothing is found
    where there is none.
    """
    try:
        tree, signed = _kept(store), _checkpoint(store)[1]
    except DamageError as exc:
        return [Finding(exc.key, "cannot be read", exc.expected, exc.found)]
    if tree is None or signed is None:
        return [
            Finding(key, "is missing, though another file of the tree is there")
            for key, file_content in ((layout.TREE, tree), (layout.CHECKPOINT, signed))
            if file_content is None and (tree or signed)
        ]
    return list(_differences(store, tree, signed, known, deep=deep))


def _differences(
    store: Store, tree: Tree, signed: Checkpoint, known: Sequence[PublicKey], *, deep: bool
) -> Iterator[Finding]:
    root = root_of(store)
    if signed.root != root:
        yield Finding(layout.CHECKPOINT, "is of another seal of the bundle", root, signed.root)
        return
    if signed.unknown(known):
        yield Finding(
            layout.CHECKPOINT, "has a signature that does not hold, or is by a key that signed nothing else"
        )
    if not signed.notes:
        yield Finding(layout.CHECKPOINT, "is not signed")
    kept_values = (tree.bundle, tree.root, tree.size, tree.hash)
    if kept_values != (signed.bundle, signed.root, signed.size, signed.hash):
        yield Finding(layout.TREE, f"differs from {layout.CHECKPOINT}", signed.hash.hex(), tree.hash.hex())
    if merkle_tree.top(tree.nodes) != signed.hash:
        yield Finding(layout.TREE_NODES, "does not lead to the root in the checkpoint", signed.hash.hex())
    if deep:
        try:
            regrown = build_tree(store, tree.seed)
        except DamageError as exc:
            yield Finding(exc.key, "cannot be read", exc.expected, exc.found)
            return
        if (regrown.size, regrown.hash) != (signed.size, signed.hash):
            sentence = "is not the root over index and catalog, with the salts of sig/tree.json"
            yield Finding(layout.CHECKPOINT, sentence, regrown.hash.hex(), signed.hash.hex())


def _kept(store: Store) -> Tree | None:
    key = layout.TREE
    try:
        data = store.read(key, 0, _MAX_BYTES)
    except GoneError:
        return None
    try:
        value = canonical_json.decode(data, key, version=VERSION)
        size, nodes_bytes = int(value["size"]), store.stat(layout.TREE_NODES).size_bytes
        length = -(-size // merkle_tree.GROUP) * merkle_tree.SIZE
        nodes = store.read(layout.TREE_NODES) if nodes_bytes == length else b""
        tree = Tree(
            str(value["bundle"]), str(value["root"]), bytes.fromhex(value["seed"]), size,
            bytes.fromhex(value["hash"]), nodes,
        )  # fmt: skip
    except GoneError as exc:
        raise DamageError(layout.TREE_NODES, expected="a file", found="none") from exc
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise DamageError(key, expected="a tree", found=f"something else ({in_words(exc)})") from exc
    if len(nodes) != length:
        raise DamageError(layout.TREE_NODES, expected=f"nodes of {size} leaves", found=f"{nodes_bytes} bytes")
    if _encode(tree) != data or not _ROOT.fullmatch(tree.root):
        raise DamageError(key, expected="a tree as it is written", found="something else")
    return tree


def _encode(tree: Tree) -> bytes:
    value = {
        "version": VERSION,
        "bundle": tree.bundle,
        "root": tree.root,
        "seed": tree.seed.hex(),
        "size": tree.size,
        "hash": tree.hash.hex(),
    }
    return canonical_json.encode(value) + b"\n"


def _checkpoint(store: Store) -> tuple[str | None, Checkpoint | None]:
    """Return the checkpoint that lies there, and its file's etag."""
    try:
        etag = store.stat(layout.CHECKPOINT).etag
        return etag, checkpoint.decode(store.read(layout.CHECKPOINT, 0, checkpoint.MAX_BYTES + 1))
    except GoneError:
        return None, None
    except ValueError as exc:
        raise DamageError(layout.CHECKPOINT, expected="a signed checkpoint", found=str(exc)) from exc
