"""Scripts in which one chosen call fails."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TypeVar

from jobqd.scripts import Script
from jobqd.store.call import Call

T = TypeVar("T")

INJECTED = "injected error"
_PRELUDE = """
local calls, fails_at, real = 0, %d, redis
local redis = setmetatable({}, {__index = real})
redis.call = function(...)
  calls = calls + 1
  if calls == fails_at then error('%s') end
  return real.call(...)
end
redis.pcall = function(...)
  calls = calls + 1
  if calls == fails_at then return {err = 'ERR %s'} end
  return real.pcall(...)
end
"""


def failing_at(call: Call[T], number: int) -> Call[T]:
    """Return the call with an error at its `number`th command, the first being 1."""
    source = failing(call.script, number)
    return replace(call, script=Script(call.script.name, source, hashlib.sha1(source).hexdigest()))


def failing(script: Script, number: int) -> bytes:
    """Return the source of a script with an error at its `number`th command."""
    return (_PRELUDE % (number, INJECTED, INJECTED)).encode() + script.source
