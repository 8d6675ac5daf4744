"""Opens templates. Compiled ones are kept where Python keeps its compiled modules: to compile a template takes longer
than to fill it.
"""

from __future__ import annotations

import hashlib
import marshal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path
from typing import Any

import jinja2
from jinja2.bccache import Bucket

from migrate.storage.local.whole_file import replace_file

_OPTIONS: Mapping[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
_DIGEST_BYTES = hashlib.sha256().digest_size


def open_templates(directory: Path, filters: Mapping[str, Callable[..., object]]) -> jinja2.Environment:
    """Return the templates of a directory. Every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        bytecode_cache=TemplateCache(_OPTIONS),
        **_OPTIONS,
    )
    environment.filters |= filters
    return environment


class TemplateCache(jinja2.BytecodeCache):
    """One file a template: a digest, and the code. The digest is of the code and of all that it was made of: the text
    of the template, the ``options`` of the environment, the versions of Python and Jinja. A file that differs is
    written again. Where none can be written, templates are compiled each time.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        self._made_of = f"{MAGIC_NUMBER!r} {jinja2.__version__} {options}"
        self._directory = Path(cache_from_source(__file__)).parent

    def load_bytecode(self, bucket: Bucket) -> None:
        """Read a template, if its file is there and as it was written."""
        with suppress(OSError):
            data = self._path(bucket).read_bytes()
            digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if digest == self._digest(bucket, code):
                bucket.code = marshal.loads(code)  # noqa: S302  as Python reads its own compiled modules

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Write a template, unless Python writes no compiled modules either."""
        if sys.dont_write_bytecode:
            return
        code = marshal.dumps(bucket.code)
        with suppress(OSError):
            data = self._digest(bucket, code) + code
            replace_file(self._path(bucket), data, crash_point="report.compiled_template")

    def _digest(self, bucket: Bucket, code: bytes) -> bytes:
        return hashlib.sha256(f"{self._made_of} {bucket.checksum}".encode() + code).digest()

    def _path(self, bucket: Bucket) -> Path:
        return self._directory / f"template-{bucket.key}.{sys.implementation.cache_tag}"
