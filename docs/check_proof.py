"""Check a proof of moveout's with nothing but Python: check_proof.py FILE.tlog-proof SIGNER.pub (known before)."""

import sys
from base64 import b64decode, b64encode
from hashlib import sha256, sha512
from pathlib import Path

P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P  # Ed25519's curve, RFC 8032 section 5.1


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    return (b - a) * (d - c) % P, (d + c) * (b + a) % P, (d - c) * (d + c) % P, (b - a) * (b + a) % P


def times(k, p):
    return add(p if k & 1 else (0, 1, 1, 0), times(k >> 1, add(p, p))) if k else (0, 1, 1, 0)


def point(data):
    y = int.from_bytes(data, "little") & (2**255 - 1)
    xx = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(xx, (P + 3) // 8, P)
    x = x if (x * x - xx) % P == 0 else x * pow(2, (P - 1) // 4, P) % P
    if (x * x - xx) % P or y >= P:
        sys.exit("no point of the curve")
    x = x if x % 2 == data[31] >> 7 else P - x
    return x, y, 1, x * y % P


def is_signed(key, message, signature):
    r, s = point(signature[:32]), int.from_bytes(signature[32:], "little")
    h = int.from_bytes(sha512(signature[:32] + key + message).digest(), "little") % L
    a, b = times(s, point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))), add(r, times(h, point(key)))
    return s < L and (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


head, body, notes = Path(sys.argv[1]).read_bytes().split(b"\n\n")
lines, (origin, size, root, _) = head.split(b"\n"), body.split(b"\n")
key, mark = b64decode(Path(sys.argv[2]).read_text().split()[1])[-32:], "— ".encode() + origin + b" "
leaf, path = b64decode(lines[1][6:]), [b64decode(line) for line in lines[3:]]
index, last, found = int(lines[2][6:]), int(size) - 1, sha256(b"\0" + leaf).digest()
want = [b"c2sp.org/tlog-proof@v1", b"extra " + b64encode(leaf), b"index %d" % index, *map(b64encode, path)]
values, hint = [b64decode(n[-92:]) for n in notes.splitlines()], sha256(origin + b"\n\1" + key).digest()[:4]
is_number = 0 <= index <= last
for sibling in path:  # up a Merkle tree, RFC 6962; a node without a sibling goes up as it is
    lone = (index & -index).bit_length() - 1 if index == last > 0 else 0
    found = sha256(b"\1" + (sibling + found if index >> lone & 1 else found + sibling)).digest()
    index, last = index >> lone + 1, last >> lone + 1
if lines != want or not is_number or notes != b"".join(mark + b64encode(value) + b"\n" for value in values):
    sys.exit("this is not written as a proof is")
if found != b64decode(root) or last:
    sys.exit("the item is not in the tree")
if not any(value[:4] == hint and is_signed(key, body + b"\n", value[4:]) for value in values):
    sys.exit("the root is not signed by this key")
for line in (leaf, b"is in", *body.split(b"\n"), b"and the signature holds"):
    # what a terminal might take for a command is shown as an escape
    print("".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in line.decode()))
