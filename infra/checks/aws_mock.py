"""Both partitions of AWS for the walk of `cargo xtask infra`: moto's server, with a CloudFormation nearer to AWS's own.

moto's change sets say nothing of parameters or replacement, its stacks do not roll back, and types that it lacks are passed over
in silence. Here, as at AWS:
- parameters that a template does not declare, lacks, or does not allow are refused when the change set is made;
- a change set says what changes, and what is replaced, by the resource schemas that cfn-lint carries; one without changes fails;
- a stack that fails is rolled back, with the cause among its events;
- `AWS::Partition` is the region's.
That is changes.py.

Types whose service moto has, and its CloudFormation not, are made through the service's own API. And a type that moto lacks becomes
a placeholder with an id and attributes, and is told as such: what could not be deployed is computed, and never silently taken for
deployed. Placeholders do what moto's models do not: they keep their properties. That
is made.py.

    aws_mock.py DIRECTORY NAME:REGION:ACCOUNT...

Serves each partition by a process of its own, forked when all is loaded, and ends when one of them does. Writes the port to NAME.port
in DIRECTORY when it serves, and a line of JSON to NAME.list for each resource it could only hold a place for, and
for each that moto made but could not update.
"""

import ctypes
import logging
import os
import signal
import sys
import warnings

import moto_changesets  # it changes moto's CloudFormation
from moto_resources import HERE
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

# Linux, <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


def serve(port_file):
    open(HERE.LIST_FILE, "w", encoding="utf-8").close()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, request_handler=MotoRequestHandler)
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
            # It ends with its parent, however that ends.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                sys.exit(1)
            HERE.PARTITION = "aws-us-gov" if HERE.REGION.startswith("us-gov-") else "aws"
            HERE.LIST_FILE = os.path.join(sys.argv[1], name + ".list")
            os.environ["MOTO_ACCOUNT_ID"] = HERE.ACCOUNT
            serve(os.path.join(sys.argv[1], name + ".port"))
    os.wait()
    sys.exit("a partition has ended")
