"""The only part that talks to Redis: connections, calls of scripts and their replies, errors turned into decisions."""

from jobqd.store.call import Call
from jobqd.store.connect import Target
from jobqd.store.identity import Identity, SyncIdentity
from jobqd.store.ledger import Ledger
from jobqd.store.link import Link, SyncLink

__all__ = ["Call", "Identity", "Ledger", "Link", "SyncIdentity", "SyncLink", "Target"]
