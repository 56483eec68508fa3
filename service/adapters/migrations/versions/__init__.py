"""One file a revision, each following the one before it (`down_revision`); never changed once released."""
