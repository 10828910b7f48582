#!/usr/bin/env python3
"""Says yes to every sink of the agent, over TLS.

memory.py PORT CERTIFICATE KEY
"""

import http.server
import ssl
import sys

BOOT_ID = b"0123456789abcdef"


def sequence_of(batch):
    """From the last frame, which is not compressed: field 3, a varint."""
    begin = batch.rindex(b"\x28\xb5\x2f\xfd\x20")
    fields = batch[begin + 9 :]
    assert fields[0] == 3 << 3, fields
    value = shift = 0
    for byte in fields[1:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value
    raise ValueError(fields)


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(204)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("/query"):
            self.answer(200, b'{"results":[{"statement_id":0}]}')
        elif self.path.startswith("/aggregator"):
            self.answer(200, b"\x0a\x10" + BOOT_ID + b"\x10" + varint(sequence_of(body)))
        else:
            self.answer(204)

    def log_message(self, *_):
        pass


def main():
    port, certificate, key = sys.argv[1:4]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
