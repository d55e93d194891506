#!/usr/bin/env python3
"""A double of the AWS CLI for the tests of infra/certificate: AWS Private CA in short-lived mode. Calls of other services go to the
program that $REAL_AWS names. $DOUBLE is a directory with the authority (ca.pem, ca.key) and `calls`, a line for each call.

moto's authority ignores algorithm and validity, and answers at once. This one refuses what AWS's pages say is refused:
  https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html   algorithm of the key's family
  https://docs.aws.amazon.com/privateca/latest/userguide/short-lived-certificates.html  at most seven days
  https://docs.aws.amazon.com/privateca/latest/APIReference/API_GetCertificate.html     RequestInProgressException
  https://docs.aws.amazon.com/privateca/latest/userguide/template-definitions.html      EndEntityClientAuthCertificate/V1
"""
import os
import re
import subprocess
import sys

DOUBLE = os.environ["DOUBLE"]
CA = "arn:aws-us-gov:acm-pca:us-gov-west-1:444455556666:certificate-authority/11223344-1234-1122-2233-112233445566"
EXTENSIONS = """basicConstraints = critical, CA:FALSE
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = clientAuth
"""


def refuse(code, operation, message):
    sys.exit("\nAn error occurred (%s) when calling the %s operation: %s" % (code, operation, message))


def file(name):
    return os.path.join(DOUBLE, name)


def read(name):
    with open(file(name), encoding="ascii") as stream:
        return stream.read()


def openssl(*arguments):
    return subprocess.run(("openssl",) + arguments, stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True).stdout


def key_algorithm():
    text = openssl("pkey", "-in", file("ca.key"), "-noout", "-text")
    if "prime256v1" in text:
        return "EC_prime256v1"
    return "EC_secp384r1" if "secp384r1" in text else "RSA_2048"


def describe(given):
    status = read("status").strip() if os.path.exists(file("status")) else "ACTIVE"
    return "%s\t%s" % (status, key_algorithm())


def issue(given):
    family = "RSA" if key_algorithm().startswith("RSA") else "ECDSA"
    if not given["--signing-algorithm"].endswith("WITH" + family):
        refuse("InvalidArgsException", "IssueCertificate", "The signing algorithm must match the algorithm family of the CA's key.")
    validity = re.fullmatch("Value=([0-9]+),Type=DAYS", given["--validity"])
    if not validity or not 1 <= int(validity[1]) <= 7:
        refuse("ValidationException", "IssueCertificate", "The requested validity exceeds the seven days of a SHORT_LIVED_CERTIFICATE authority.")
    if given["--template-arn"] != "arn:aws-us-gov:acm-pca:::template/EndEntityClientAuthCertificate/V1":
        refuse("InvalidArgsException", "IssueCertificate", "The template ARN is not valid.")
    csr = re.fullmatch("fileb://(.*)", given["--csr"])[1]
    try:
        openssl("req", "-in", csr, "-verify", "-noout")
    except subprocess.CalledProcessError:
        refuse("MalformedCSRException", "IssueCertificate", "The certificate signing request is invalid.")
    with open(file("extensions"), "w", encoding="ascii") as stream:
        stream.write(EXTENSIONS)
    openssl("x509", "-req", "-in", csr, "-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-set_serial", str(1000 + len(read("calls"))),
            "-days", validity[1], "-sha256", "-extfile", file("extensions"), "-out", file("issued"))
    if os.path.exists(file("ready")):
        os.remove(file("ready"))
    return CA + "/certificate/8f9e"


def wait(given):
    open(file("ready"), "w", encoding="ascii").close()


def get(given):
    if not os.path.exists(file("ready")):
        refuse("RequestInProgressException", "GetCertificate", "Your request is already in progress.")
    return {"Certificate": lambda: read("issued"), "CertificateChain": lambda: read("ca.pem")}[given["--query"]]().rstrip("\n")


# Operation, its arguments, and what it does.
AUTHORITY = ["--certificate-authority-arn"]
KNOWN = {
    ("describe-certificate-authority",): (AUTHORITY + ["--output", "--query"], describe),
    ("issue-certificate",): (AUTHORITY + ["--csr", "--signing-algorithm", "--validity", "--output", "--query", "--template-arn"], issue),
    ("wait", "certificate-issued"): (AUTHORITY + ["--certificate-arn"], wait),
    ("get-certificate",): (AUTHORITY + ["--certificate-arn", "--output", "--query"], get),
}


def main():
    arguments = sys.argv[1:]
    with open(file("calls"), "a", encoding="utf-8") as calls:
        calls.write(" ".join(arguments) + "\n")
    if "acm-pca" not in arguments:
        os.execv(os.environ["REAL_AWS"], [os.environ["REAL_AWS"]] + arguments)
    at = arguments.index("acm-pca")
    if arguments[:at] != ["--region", "us-gov-west-1"]:
        sys.exit("acm_pca.py: unexpected options %s" % arguments[:at])
    rest = arguments[at + 1:]
    operation = tuple(word for word in rest[:2] if not word.startswith("--"))
    given = dict(zip(rest[len(operation)::2], rest[len(operation) + 1::2]))
    if operation not in KNOWN or sorted(given) != sorted(KNOWN[operation][0]):
        sys.exit("acm_pca.py: unexpected call %s" % rest)
    if given["--certificate-authority-arn"] != CA:
        refuse("ResourceNotFoundException", operation[0], "Could not find Certificate Authority.")
    answer = KNOWN[operation][1](given)
    if answer is not None:
        print(answer)


if __name__ == "__main__":
    main()
