"""What producers use: Queue for asyncio, SyncQueue for everything else."""

from jobqd.client.queue import JobHandle, Queue
from jobqd.client.spec import JobSpec, Limits
from jobqd.client.sync import SyncJobHandle, SyncQueue
from jobqd.store.facts import JobInfo, Progress

__all__ = ["JobHandle", "JobInfo", "JobSpec", "Limits", "Progress", "Queue", "SyncJobHandle", "SyncQueue"]
