"""What a sync names as lost before it has copied anything."""

from types import SimpleNamespace

import pytest

from migrate.sync import capability_survey


@pytest.mark.parametrize(("server", "lost"), [("VERSITYGW", True), ("AmazonS3", False)])
def test_an_order_that_the_source_does_not_list_is_lost(server, lost):
    source = SimpleNamespace(server=server, name="media")
    losses = capability_survey._losses(
        SimpleNamespace(source=source, history=True),
        SimpleNamespace(probed=True),
        keeps_versions=True,
        tags_readable=True,
    )
    assert ("order of versions" in [loss.property for loss in losses]) == lost
