"""One file a revision, each following the one before it (`down_revision`); never changed once released.

What each of them made when it was new is in tests/service/schemas, from which upgrades are tested.
"""
