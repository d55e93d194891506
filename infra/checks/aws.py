"""The AWS CLI, loaded once and forked for each call: `infra/deploy` makes hundreds of calls, and loading would take most of
the time.

    aws.py SOCKET

`infra-checks aws SOCKET` is the `aws` command: it passes its arguments, environment and files on, and exits with the call's status.
Each call runs the CLI's own driver in a new process.
"""

import array
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import traceback


def handle(connection, driver):
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(12))
    files = array.array("i")
    files.frombytes(ancillary[0][2])
    what, left = b"", int.from_bytes(head, "big")
    while len(what) < left:
        what += connection.recv(left - len(what))
    what = json.loads(what)
    for number, file in enumerate(files):
        os.dup2(file, number)
    # The CLI sets this when it is loaded: the directory of its own data.
    data = os.environ["AWS_DATA_PATH"]
    os.environ.clear()
    os.environ.update(what["environment"], AWS_DATA_PATH=data)
    os.chdir(what["directory"])
    # Read again, by the call's own environment.
    driver.session._config = driver.session._profile_map = None
    try:
        ended = driver.main(what["arguments"])
    except SystemExit as end:
        ended = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([ended or 0]))


def serve(path):
    import functools

    import awscli.clidriver
    import botocore.loaders

    # Files that are read before the fork stay in memory for every call.
    loader = botocore.loaders.JSONFileLoader
    read = functools.lru_cache(maxsize=None)(functools.partial(loader.load_file, loader()))
    loader.load_file = lambda _, path: read(path)
    # Each session would list the directories of all services again.
    listed, list_services = {}, botocore.loaders.Loader.list_available_services

    def list_once(self, type_name):
        if type_name not in listed:
            listed[type_name] = list_services(self, type_name)
        return listed[type_name]

    botocore.loaders.Loader.list_available_services = list_once
    # Calls to a closed port load the remaining modules.
    os.environ.update(AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE", AWS_SECRET_ACCESS_KEY="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                      AWS_MAX_ATTEMPTS="1", AWS_REGION="us-gov-west-1", AWS_EC2_METADATA_DISABLED="true")
    for words in ("cloudformation describe-stacks", "ec2 describe-vpcs", "s3api list-buckets", "secretsmanager list-secrets",
                  "sts get-caller-identity"):
        with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            awscli.clidriver.create_clidriver().main([*words.split(), "--endpoint-url", "http://127.0.0.1:1", "--query", "X"])
    # No call has used this one.
    driver = awscli.clidriver.create_clidriver()
    driver._get_command_table()
    driver._get_argument_table()
    gc.freeze()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path + ".new")
        server.listen(16)
        os.rename(path + ".new", path)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                try:
                    handle(connection, driver)
                except BaseException:  # the fork must not continue as the server
                    traceback.print_exc()
                finally:
                    os._exit(0)
            connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
