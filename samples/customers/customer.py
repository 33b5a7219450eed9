"""Asks a URL again and again over one kept connection, as programs written in Python do, until standard input ends.

Usage: customer.py URL PAUSE_MS. Prints one line of JSON at the end.
"""

import datetime
import http.client
import json
import socket
import sys
import threading
import urllib.parse

url = urllib.parse.urlsplit(sys.argv[1])
pause = int(sys.argv[2]) / 1000
end = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), end.set()), daemon=True).start()
result = {"requests": 0, "failures": 0, "failed": [], "slowest": 0}
connection = None


def connect():
    opened = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=5)
    opened.connect()
    return opened


while not end.is_set():
    result["requests"] += 1
    began, phase = datetime.datetime.now(datetime.timezone.utc), "connect"
    try:
        if connection is None:
            connection = connect()
        phase = "answer"
        try:
            connection.request("GET", url.path or "/")
            answer = connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A kept connection may be closed at any time between two requests (RFC 9112 section 9.3.1): a safe one is sent again.
            connection.close()
            phase = "connect"
            connection = connect()
            phase = "answer"
            connection.request("GET", url.path or "/")
            answer = connection.getresponse()
        body = answer.read()
        error = "" if answer.status < 400 else f"{answer.status} {body[:120]!r}"
    except Exception as e:  # whatever goes wrong is counted
        error = repr(e)
        if isinstance(e, socket.gaierror):
            phase = "resolve"
        if connection is not None:
            connection.close()
        connection = None
    took = int((datetime.datetime.now(datetime.timezone.utc) - began).total_seconds() * 1e9)
    if took > result["slowest"]:
        result["slowest"], result["slowestAt"] = took, began.isoformat()
    if error:
        result["failures"] += 1
        result["failed"] = (result["failed"] + [{"time": began.isoformat(), "took": took, "phase": phase, "error": error}])[:1000]
    end.wait(pause)
print(json.dumps(result))
