"""Object storage as a source: buckets of S3 and of whatever speaks its language."""

from exporters.objects.source import ObjectExporter

__all__ = ["ObjectExporter"]
