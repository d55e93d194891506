"""A metadata service: imds.py ADDRESS PORT ITEM=TEXT … It requires a token and serves only these items."""
import http.server
import sys

items = dict(argument.split("=", 1) for argument in sys.argv[3:])


class Answer(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        known = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.answer(200 if known else 404, "TOKEN" if known else "")

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") != "TOKEN":
            return self.answer(401, "")
        text = items.get(self.path.removeprefix("/latest/meta-data/"))
        self.answer(404 if text is None else 200, text or "")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Answer)
print("ready http://%s:%d" % server.server_address, flush=True)
server.serve_forever()
