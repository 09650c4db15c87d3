"""A demonstration: films rendered with ffmpeg, mails that overtake them, and jobs that fail in every way."""

from jobqd.demo.jobs import handlers

__all__ = ["handlers"]
