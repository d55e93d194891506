"""A mock of both partitions of AWS for the upgrade test: moto's server, with a CloudFormation closer to AWS's own.

moto's change sets ignore parameters and replacement, its stacks do not roll back, and it silently skips types that it
lacks.
moto_changesets.py makes CloudFormation behave as at AWS:
- creating a change set refuses unknown, missing and disallowed parameters;
- a change set lists changes and replacements, by the resource schemas of cfn-lint; one without changes fails;
- a failed stack is rolled back, and its events have the cause;
- a deletion keeps what outlives its stack, and one that fails leaves the stack;
- `AWS::Partition` is the region's partition.

moto_resources.py adds resource types:
- if moto has the service but not the CloudFormation type, the resource is created through the service's API;
- if moto has neither, a placeholder with an id, attributes and the properties takes its place. Each placeholder is
  reported, so that no test takes it for a deployed resource.

    aws_mock.py DIRECTORY NAME:REGION:ACCOUNT...

Each partition has a process of its own, forked after everything is loaded. The program ends when one of them ends. It writes
the port to NAME.port in DIRECTORY once it serves. It appends a line of JSON to NAME.list for each placeholder and for each
resource that moto could not update.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
import warnings

import moto_account  # patches moto's STS, IAM, Bedrock and Service Quotas
import moto_changesets  # patches moto's CloudFormation
import moto_iam  # patches moto's IAM
from moto_resources import HERE, INNER
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

# From Linux's <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


class OneAtATime:
    """Serves one request at a time, since moto's backends have no locks. Requests of moto_resources.api are part of another."""

    def __init__(self, application):
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        if INNER in environ.get("HTTP_USER_AGENT", ""):
            return self.application(environ, start_response)
        with self.lock:
            return list(self.application(environ, start_response))


def serve(port_file):
    open(HERE.LIST_FILE, "w", encoding="utf-8").close()
    server = make_server("127.0.0.1", 0, OneAtATime(DomainDispatcherApplication(create_backend_app)), threaded=True,
                         request_handler=MotoRequestHandler)
    HERE.PORT = server.server_port
    with open(port_file + ".new", "w", encoding="utf-8") as file:
        file.write(str(HERE.PORT))
    os.rename(port_file + ".new", port_file)
    server.serve_forever()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    parent = os.getpid()
    for partition in sys.argv[2:]:
        name, HERE.REGION, HERE.ACCOUNT = partition.split(":")
        if os.fork() == 0:
            # Killed when its parent ends, however that ends.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                sys.exit(1)
            HERE.PARTITION = "aws-us-gov" if HERE.REGION.startswith("us-gov-") else "aws"
            HERE.LIST_FILE = os.path.join(sys.argv[1], name + ".list")
            os.environ["MOTO_ACCOUNT_ID"] = HERE.ACCOUNT
            serve(os.path.join(sys.argv[1], name + ".port"))
    os.wait()
    sys.exit("a partition has ended")
