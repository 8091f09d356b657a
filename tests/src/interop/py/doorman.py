"""A program of an operator's: it says who may (auth.callback), and has a key set (auth.jwks), over HTTPS.

    doorman.py ADDRESS PORT CERTIFICATE_AND_KEY DIRECTORY

It prints a token that its key signed, `ready`, and each question as `asked {...}`."""
import base64
import json
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

address, port, certificate, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
KEY = "s3cr3t-publish-key"


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args, data=b""):
    return subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout


signer = f"{directory}/signer.pem"
openssl("genrsa", "-out", signer, "2048")
modulus = openssl("rsa", "-in", signer, "-noout", "-modulus").decode().strip().split("=")[1]
key_set = {"keys": [{"kty": "RSA", "kid": "k1", "alg": "RS256", "use": "sig", "n": url64(bytes.fromhex(modulus)), "e": "AQAB"}]}
claims = {"sub": "camera", "exp": int(time.time()) + 3600, "action": ["publish", "play"], "stream": "live/t"}
signed = ".".join(url64(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "k1"}, claims))
token = f"{signed}.{url64(openssl('dgst', '-sha256', '-sign', signer, data=signed.encode()))}"


def decide(asked):
    if asked["stream"] == KEY:
        return 200, {"stream": "show", "user": "studio"}
    if (asked["user"], asked["password"]) == ("alice", "wonder-password"):
        return 200, {"user": "alice"}
    if asked["token"] == "a-ticket":
        return 200, {"allow": True, "user": "guest", "expires_s": 600}
    return 401 if asked["token"] == "" and asked["user"] == "" else 403, {"reason": "not on the list"}


class Doorman(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        # Its end is that of the connection.
        self.send_response(200)
        self.send_header("Content-Type", "application/jwk-set+json")
        self.end_headers()
        self.wfile.write(json.dumps(key_set).encode())
        self.close_connection = True

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("asked", json.dumps(asked), flush=True)
        status, says = decide(asked) if self.headers["Authorization"] == "Bearer a-node" else (500, {})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = json.dumps(says).encode()
        for piece in (body[:1], body[1:], b""):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


server = ThreadingHTTPServer((address, port), Doorman)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("token", token, flush=True)
print("ready", flush=True)
server.serve_forever()
