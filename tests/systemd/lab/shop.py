"""A video shop's handlers, as the tests of the unit's locks run them, and the servers that they talk to."""

from __future__ import annotations

from tests.systemd.lab.machine import Machine

HANDLERS = """
import asyncio, ctypes, os, smtplib, urllib.request
from email.message import EmailMessage
from pathlib import Path
from jobqd import Handlers

handlers = Handlers()

@handlers.job
def send_mail(to: str, subject: str):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.org", to, subject
    message.set_content("Your film is ready.")
    with smtplib.SMTP("localhost", 2525) as server:
        server.send_message(message)

@handlers.job
async def call_api(path: str):
    def call():
        with urllib.request.urlopen(f"http://127.0.0.1:8080{path}") as answer:
            return answer.read().decode()
    return await asyncio.to_thread(call)

@handlers.job
async def video_render(job, flags: str = "bicubic"):
    directory = Path(os.environ["STATE_DIRECTORY"]) / "films"
    directory.mkdir(exist_ok=True)
    film = directory / f"{job.id}.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=duration=1:size=320x240:rate=25"]
    scale = ["-vf", f"scale=640:480:flags={flags},format=yuv420p", "-c:v", "libx264"]
    async for _ in job.exec("ffmpeg", "-nostdin", "-y", "-loglevel", "error", *source, *scale, str(film)):
        pass
    return {"film": str(film), "size": film.stat().st_size}

@handlers.job(process=True)
async def apart():
    add = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda number: number + 1)
    (Path(os.environ["STATE_DIRECTORY"]) / "apart").write_text("written")
    return {"pid": os.getpid(), "parent": os.getppid(), "added": add(41)}

@handlers.job(max_attempts=1)
async def attempt(code: str):
    return str(eval(code))
"""
_SMTP = """
import asyncio
async def serve(reader, writer):
    async def say(text):
        writer.write(text + b"\\r\\n")
        await writer.drain()
    await say(b"220 shop ESMTP")
    while line := await reader.readline():
        word = line[:4].upper()
        if word == b"DATA":
            await say(b"354 go on")
            lines = []
            while (line := await reader.readline()) != b".\\r\\n":
                lines.append(line)
            open("/tmp/mail", "ab").write(b"".join(lines))
        await say(b"221 bye" if word == b"QUIT" else b"250 ok")
        if word == b"QUIT":
            break
    writer.close()
async def main():
    async with await asyncio.start_server(serve, "localhost", 2525) as server:
        import subprocess
        subprocess.run(["systemd-notify", "--ready"])
        await server.serve_forever()
asyncio.run(main())
"""
_HTTP = """
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"you asked for " + self.path.encode())
server = HTTPServer(("127.0.0.1", 8080), Answer)
subprocess.run(["systemd-notify", "--ready"])
server.serve_forever()
"""


class Neighbours:
    """A mail server and a web API on the machine; `mail` is what the one has received."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def start(self) -> None:
        """Start them; they listen when this returns."""
        for name, script in (("smtp", _SMTP), ("http", _HTTP)):
            self._machine.write(f"/srv/neighbours/serve_{name}.py", script)
            self._machine.run(
                "systemd-run", "--quiet", f"--unit=neighbour-{name}", "--property=Type=notify",
                "--property=NotifyAccess=all", "python3", f"/srv/neighbours/serve_{name}.py",
            )  # fmt: skip

    def stop(self) -> None:
        """Stop them and forget the mail."""
        self._machine.run("systemctl", "stop", "neighbour-smtp", "neighbour-http", check=False)
        self._machine.shell("rm -rf /srv/neighbours /tmp/mail")

    @property
    def mail(self) -> str:
        return self._machine.read("/tmp/mail")
