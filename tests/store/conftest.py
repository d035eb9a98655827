"""Fixtures of the store room."""

import pytest

pytest.register_assert_rewrite("store_conformance")
