"""Fixtures: our node over each carrier that there is, in the cluster of bridge.testing.plugin."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from node_support import OpenNode, needs_relay
from plain_carrier import plain_carrier

from bridge.dist.flags import ABLE, OFFERED
from bridge.node import Node, relay_carrier


@pytest.fixture(
    params=[
        pytest.param(plain_carrier, id="plain"),
        pytest.param(relay_carrier, id="relay", marks=needs_relay),
    ]
)
def carrier(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def open_test_node(open_cluster_node: OpenNode, carrier: Any) -> OpenNode:
    """open_test_node(alive=None, **options of open_node): our node in the tests' cluster."""

    def open_it(alive: str | None = None, **options: Any) -> AbstractAsyncContextManager[Node]:
        # Whatever needs asking for too; the double has no atom cache.
        flags = ABLE if carrier is relay_carrier else OFFERED
        return open_cluster_node(alive, **{"carrier": carrier, "flags": flags, **options})

    return open_it


@pytest.fixture
def open_tls_node(open_cluster_node: OpenNode) -> OpenNode:
    """As open_test_node, over the relay, which alone does TLS."""
    return open_cluster_node
