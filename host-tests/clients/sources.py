"""Calls the doubles of AWS's credential services with AWS's own clients: `sources.py HOST:PORT` with a JSON object on standard
input.

Prints one JSON object for each call: its name and its result, or `error` with the exception's class, code and message. The
tests in `host-tests/tests/envoy` read it. The doubles speak plain HTTP and take the service from the Host header.
"""

import json
import sys

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from iam_rolesanywhere_session import IAMRolesAnywhereSession


def attempt(name, call):
    row = {"call": name}
    try:
        row.update(call())
    except ClientError as error:
        row["error"] = {"class": type(error).__name__, **error.response["Error"]}
    except Exception as error:  # The test checks the class.
        row["error"] = {"class": type(error).__name__, "Message": str(error)}
    print(json.dumps(row, default=str), flush=True)
    return row


def sts(address, region, **options):
    # As a proxy, the double gets the host of AWS's endpoint.
    config = {"proxies": {"http": f"http://{address}"}, "retries": {"total_max_attempts": 1}}
    config.update({"signature_version": UNSIGNED} if not options else {})
    return boto3.client(
        "sts", region_name=region, endpoint_url=f"http://sts.{region}.amazonaws.com", config=Config(**config), **options
    )


def federation(address, keys, audience, role):
    """GetWebIdentityToken in GovCloud, AssumeRoleWithWebIdentity in the Commercial partition."""
    govcloud, commercial = sts(address, "us-gov-west-1", **keys), sts(address, "us-east-1")

    def token():
        answer = govcloud.get_web_identity_token(Audience=[audience], DurationSeconds=300, SigningAlgorithm="RS256")
        return {"token": answer["WebIdentityToken"], "expiration": answer["Expiration"]}

    def assume(token):
        answer = commercial.assume_role_with_web_identity(RoleArn=role, RoleSessionName="test", WebIdentityToken=token)
        return {"key": answer["Credentials"]["AccessKeyId"], "arn": answer["AssumedRoleUser"]["Arn"]}

    row = attempt("GetWebIdentityToken", token)
    attempt("AssumeRoleWithWebIdentity", lambda: assume(row.get("token", "none")))


def certificate(address, **options):
    """CreateSession of IAM Roles Anywhere, by the package that AWS Labs publishes."""

    def create():
        options.update({name: options[name].encode() for name in ("certificate", "private_key", "certificate_chain") if options.get(name)})
        session = IAMRolesAnywhereSession(**options)
        send = session._session.send

        def without_tls(request):
            request.headers["Host"] = session.endpoint
            request.url = f"http://{address}/sessions"
            return send(request)

        session._session.send = without_tls
        keys = session.get_refreshable_credentials().get_frozen_credentials()
        return {"key": keys.access_key, "secret": keys.secret_key, "token": keys.token}

    attempt("CreateSession", create)


if __name__ == "__main__":
    suites = {"federation": federation, "certificate": certificate}
    for call in json.load(sys.stdin):
        suites[call.pop("suite")](sys.argv[1], **call)
